//! `baton route FILE`: what a running router does with sessions and why, and orders to it.

use super::list::print;
use super::router::settings_of;
use crate::cli::{RouteArgs, RouteOrder};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::render::route::route;
use http::{Client, Credentials, Method, Tls};
use settings::RouterSettings;
use std::time::Duration;
use tls::{Authorities, Trust};

/// A reload reads files and certificates.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the router, which must have `router.api`.
pub(crate) async fn run(args: &RouteArgs) -> Outcome {
    let settings = settings_of(&args.file)?;
    let url = url(&settings)?;
    let login = settings.router.authentication.as_ref();
    let login = login.map(|login| Credentials {
        username: login.username.clone(),
        password: login.password.reveal().to_owned(),
    });
    let client = Client::new(login, Tls { trust: Trust::Name(Authorities::System), identity: None });
    let member = |cluster: &Option<String>, member: &str, verb: &str| {
        let cluster = cluster.as_ref().unwrap_or(&settings.scope);
        (Method::POST, format!("/clusters/{cluster}/members/{member}/{verb}"))
    };
    let (method, path) = match &args.order {
        None => (Method::GET, "/services".to_owned()),
        Some(RouteOrder::Drain(on)) => member(&on.cluster, &on.member, "drain"),
        Some(RouteOrder::Undrain(on)) => member(&on.cluster, &on.member, "undrain"),
        Some(RouteOrder::Pin(on)) => member(&on.cluster, &on.member, &format!("pin/{}", on.service)),
        Some(RouteOrder::Unpin(on)) => member(&on.cluster, &on.member, &format!("unpin/{}", on.service)),
        Some(RouteOrder::Reload) => (Method::POST, "/reload".to_owned()),
    };
    let shown = args.order.is_none();
    let reply = client.call(method, &url, &path, None, ANSWER).await.map_err(|trouble| {
        Failure::new(Code::Failed, format!("failed to ask the router at {url}: {trouble}; is it running?"))
    })?;
    if !reply.ok() {
        return Err(Failure::new(Code::Failed, format!("the router refused: {}", reply.body.trim())));
    }
    match reply.json().filter(|_| shown && !args.json) {
        Some(state) => print(&route(&state, args.sessions)),
        None => print(&reply.body),
    }
    Ok(())
}

/// Where the router's API is; one that listens on every address is here as well.
fn url(settings: &RouterSettings) -> Result<String, Failure> {
    let missing =
        "router.api is not configured: the router cannot be asked; set it to host:port and restart it";
    let api = settings.router.api.as_ref();
    let api = api.ok_or_else(|| Failure::new(Code::Configuration, missing.to_owned()))?;
    let (host, port) = api.rsplit_once(':').unwrap_or((api, ""));
    let host = if matches!(host, "0.0.0.0" | "*" | "" | "[::]") { "127.0.0.1" } else { host };
    Ok(format!("http://{host}:{port}/"))
}
