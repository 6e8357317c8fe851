//! `baton bird-config FILE`, `baton frr-config FILE`: what a BGP speaker beside the agent needs to announce the virtual addresses.

use super::list::print;
use crate::cli::BgpArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::render::bgp::{self, Announced, Speaker};
use settings::ProcessEnv;

/// Whose words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Bird,
    Frr,
}

/// Prints it.
pub(crate) async fn run(args: &BgpArgs, dialect: Dialect) -> Outcome {
    let refuse = |why: String| Failure::new(Code::Configuration, why);
    let settings =
        settings::load_vip(&args.file, &ProcessEnv).map_err(|problems| refuse(problems.to_string()))?;
    let put = |address: &settings::VirtualAddress| {
        let interface = address.interface.clone()?;
        Some(Announced { ip: address.ip, prefix_len: address.prefix_len, interface })
    };
    let speaker = Speaker {
        router_id: args.router_id,
        asn: args.asn,
        hold: args.hold_time,
        neighbors: args.neighbor.clone(),
        addresses: settings.vip.iter().filter_map(put).collect(),
    };
    bgp::check(&speaker).map_err(|why| refuse(format!("failed to {why}")))?;
    print(&match dialect {
        Dialect::Bird => bgp::bird(&speaker),
        Dialect::Frr => bgp::frr(&speaker),
    });
    Ok(())
}
