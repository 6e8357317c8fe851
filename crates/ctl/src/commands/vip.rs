//! `baton vip FILE`: holds the addresses of the `vip` section beside an agent that does not, Patroni's or ours, until told to stop.
//! `baton vip --config FILE` does it by vip-manager's own file and variables.

use super::side_api::{Page, serve};
use super::{daemon, service_manager};
use crate::cli::VipArgs;
use crate::context::etcd_config;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use agent::Telling;
use bgp::Speaker;
use settings::{ProcessEnv, VipSettings};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::exposition::labels;
use vip::{Claims, Holder, Hook, Role, Trigger, Wanted};

/// How long the end waits for the commands that release addresses.
const RELEASE: Duration = Duration::from_secs(60);
/// How long it waits until BGP neighbours have been told.
const WITHDRAW: Duration = Duration::from_secs(1);

/// Runs it.
pub(crate) fn run(args: &VipArgs) -> Outcome {
    // What stands on the command line counts, and not that BATON_CONFIG names an agent's file.
    let own = args.file.as_ref().filter(|_| args.config.is_none() && args.set.is_empty());
    let loaded = match own {
        Some(file) => settings::load_vip(file, &ProcessEnv).map(|settings| (settings, Vec::new())),
        None => settings::load_vip_manager(args.config.as_deref(), &args.set, &ProcessEnv),
    };
    let (settings, warnings) =
        loaded.map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let wanted = Addresses::of(&settings)?;
    let log = daemon::start(&settings.log, "vip.log", &warnings)?;
    let etcd =
        etcd::Etcd::new(etcd_config(&settings.etcd), etcd::Keys::new(&settings.namespace, &settings.scope))?;
    let keep = args.keep_vip;
    daemon::block_on(&log, |stop| hold(wanted, etcd, settings, keep, stop))
}

async fn hold(
    wanted: Addresses,
    etcd: etcd::Etcd,
    settings: VipSettings,
    keep: bool,
    stop: CancellationToken,
) -> Outcome {
    let me = settings.name;
    let labels = labels(&[("scope", &settings.scope), ("name", me.as_str())]);
    let (view, _watcher) = etcd::watch(etcd.clone());
    let claims = Claims::follow(etcd.clone(), view.clone(), me.clone(), wanted.roles);
    let trigger = Arc::new(Trigger::follow(etcd.clone(), view.clone(), me.clone(), claims));
    let holder = Holder::start(wanted.put, wanted.moved, trigger.clone())
        .map_err(|error| Failure::new(Code::Failed, format!("failed to {error}")))?;
    let holder = Arc::new(holder);
    let told = holder.clone();
    let speaker = wanted.announced.map(|config| Speaker::start(config, trigger.clone(), holder.watch()));
    let speaker =
        speaker.transpose().map_err(|error| Failure::new(Code::Failed, format!("failed to {error}")))?;
    let speaker = speaker.map(Arc::new);
    let quiet = CancellationToken::new();
    let telling = speaker.as_ref().map(|speaker| Telling::of(speaker, etcd, me).alone(quiet.clone()));
    let telling = telling.map(tokio::spawn);
    let sessions = speaker.clone();
    let (shown, seen) = (holder.clone(), view.clone());
    let page = move || Page {
        known: view.borrow().snapshot.is_some(),
        metrics: vip::metrics(&told.held(), &told.moved(), &labels)
            + &bgp::metrics(
                &sessions.as_ref().map(|speaker| speaker.states()).unwrap_or_default(),
                &labels,
                clock::now(),
            ),
    };
    serve(settings.api.as_deref(), page).await?;
    service_manager::ready(move || format!("{}; {}", held(&shown), service_manager::lead(&seen.borrow())));
    while !stop.is_cancelled() {
        tokio::select! {
            () = trigger.changed() => {
                holder.poke();
                speaker.iter().for_each(|speaker| speaker.poke());
            }
            () = stop.cancelled() => {}
        }
    }
    quiet.cancel();
    if let Some(speaker) = &speaker {
        speaker.end(WITHDRAW).await;
    }
    if keep {
        tracing::info!("leaves the addresses to their lifetimes, for a successor that comes at once");
        return Ok(());
    }
    if tokio::time::timeout(RELEASE, holder.end()).await.is_err() {
        tracing::error!("failed to have all addresses released within {RELEASE:?}; see the commands above");
    }
    trigger.end().await;
    if let Some(telling) = telling {
        let _ = tokio::time::timeout(WITHDRAW, telling).await;
    }
    Ok(())
}

/// Which addresses are here.
fn held(holder: &Holder) -> String {
    let put =
        holder.held().into_iter().filter(|held| held.since.is_some()).map(|held| held.wanted.to_string());
    let moved = holder.moved().into_iter().filter(|moved| moved.since.is_some());
    let here: Vec<String> = put.chain(moved.map(|moved| moved.ip.to_string())).collect();
    if here.is_empty() { "no address is here".to_owned() } else { format!("has {}", here.join(", ")) }
}

/// The addresses, by how they are held.
struct Addresses {
    put: Vec<Wanted>,
    moved: Vec<Hook>,
    roles: Vec<(std::net::IpAddr, Role)>,
    announced: Option<bgp::Config>,
}

impl Addresses {
    fn of(settings: &VipSettings) -> Result<Addresses, Failure> {
        let refuse = |why: String| Failure::new(Code::Configuration, format!("failed to {why}"));
        let announced = settings.bgp.as_ref().map(|bgp| bgp::Config::of(bgp, &settings.vip));
        let announced = announced.transpose().map_err(refuse)?;
        let mut all = Addresses { put: Vec::new(), moved: Vec::new(), roles: Vec::new(), announced };
        for given in &settings.vip {
            let role = Role::of(&given.role).map_err(|why| refuse(why.to_string()))?;
            all.roles.push((given.ip, role));
            if let Some(interface) = &given.interface {
                let wanted = Wanted::new(given.ip, given.prefix_len, interface, role);
                let wanted = wanted.map_err(|why| refuse(why.to_string()))?;
                all.put.push(Wanted { routed: given.routed, refresh: given.refresh, ..wanted });
            }
            if !given.command.is_empty() {
                let (command, timeout) = (given.command.clone(), given.timeout);
                all.moved.push(Hook { ip: given.ip, role, command, timeout });
            }
        }
        if all.roles.is_empty() {
            return Err(refuse("hold an address: the section vip names none, add vip.addresses".to_owned()));
        }
        Ok(all)
    }
}
