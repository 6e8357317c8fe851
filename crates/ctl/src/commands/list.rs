//! `baton list`: the members of clusters, from etcd, and whether they answer.

use crate::cli::{ListArgs, Repeat};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::render::list::{Wish, list};
use crate::view::Cluster;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Prints the clusters, again and again if asked.
pub(crate) async fn run(context: &Context, args: &ListArgs) -> Outcome {
    let wish = Wish { format: args.format, extended: args.extended, manner: context.manner };
    let clusters = &args.clusters;
    let head = || if args.timestamp { super::timestamp() + "\n" } else { String::new() };
    repeat(
        args.repeat,
        async || Ok(head() + &drawn(context, clusters, |cluster| list(cluster, wish)).await?),
    )
    .await?;
    Ok(())
}

/// All `clusters`, each drawn by `draw`.
pub(super) async fn drawn(
    context: &Context,
    clusters: &[String],
    draw: impl Fn(&Cluster) -> String,
) -> Result<String, Failure> {
    let mut out = String::new();
    let scopes = match (clusters, context.scope(None)) {
        ([], Ok(configured)) => vec![configured],
        ([], Err(_)) if context.manner == Manner::Patronictl => {
            super::warn("Listing members: No cluster names were provided");
            return Ok(out);
        }
        ([], Err(failure)) => return Err(failure),
        (named, _) => named.to_vec(),
    };
    for scope in scopes {
        let (_, cluster) = context.look(&scope).await?;
        out.push_str(&draw(&cluster));
    }
    Ok(out)
}

/// Prints what `make` gives: once, or on a fresh screen every so often until Ctrl-C.
pub(super) async fn repeat(repeat: Repeat, make: impl AsyncFn() -> Result<String, Failure>) -> Outcome {
    let every = repeat.every.or(repeat.watch.then_some(2.0));
    let Some(seconds) = every else {
        print(&make().await?);
        return Ok(());
    };
    loop {
        // etcd may be away for a while: the screen says so and goes on.
        let screen = make().await.unwrap_or_else(|failure| format!("{failure}\n"));
        let clear = if repeat.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J\x1b[3J" } else { "" };
        print(&format!("{clear}{screen}"));
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
}

/// Prints the table before an order and after it.
pub(super) fn show(cluster: &Cluster) {
    print(&list(cluster, Wish::default()));
}

/// Writes to standard output; a reader that has gone away is no error of ours.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
