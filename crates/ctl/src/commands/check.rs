//! `baton check FILE`: read a configuration as the agent or the router would, and say what it means. Starts nothing.
//!
//! With `--validate-config` also whether this host can run it, in the way scripts know from Patroni: silent and exit status 0,
//! or every problem on standard error and 1.

use super::agent;
use super::list::print;
use crate::cli::CheckArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{Problems, ProcessEnv, Settings};
use std::net::TcpListener;

/// Prints every setting with its origin, every warning and every problem.
pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let code = if args.validate_config { Code::Failed } else { Code::Configuration };
    let invalid = |problems: Problems| {
        let count = problems.0.len();
        let plural = if count == 1 { "problem" } else { "problems" };
        Failure::new(code, format!("{count} {plural} in the configuration\n{problems}"))
    };
    let shown = if args.validate_config { args.print } else { !args.quiet };
    if args.router {
        let file = args.file.as_deref().ok_or_else(unnamed)?;
        settings::load_router(file, &ProcessEnv).map_err(invalid)?;
    } else {
        let loaded = agent::load(args.file.as_deref()).ok_or_else(unnamed)?.map_err(invalid)?;
        if args.validate_config {
            let problems = host(&loaded.settings, args.ignore_listen_port);
            if !problems.is_empty() {
                return Err(Failure::new(code, problems.join("\n")));
            }
        }
        for origin in loaded.origins.iter().filter(|_| shown) {
            print(&format!("{origin}\n"));
        }
        for warning in loaded.warnings.iter().filter(|_| shown || !args.validate_config) {
            print(&format!("warning: {warning}\n"));
        }
    }
    if shown {
        print("The configuration is valid.\n");
    }
    Ok(())
}

fn unnamed() -> Failure {
    Failure::new(Code::Usage, "which configuration? `baton check FILE`")
}

/// What on this host is in the way of this configuration.
fn host(settings: &Settings, ignore_ports: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !ignore_ports {
        let rest = &settings.restapi;
        let hosts = rest.listen_host.split(',').map(|host| ("restapi.listen", host.trim(), rest.listen_port));
        let postgresql = &settings.postgresql;
        let listen =
            postgresql.listen.iter().map(|host| ("postgresql.listen", host.as_str(), postgresql.port));
        for (key, host, port) in hosts.chain(listen) {
            let host = if matches!(host, "*" | "") { "0.0.0.0" } else { host };
            if let Err(error) = TcpListener::bind((host, port)) {
                problems.push(format!(
                    "{key}: failed to listen on {host}:{port}: {error}; stop what uses it, or leave the ports out with --ignore-listen-port"
                ));
            }
        }
    }
    if let Some(bin_dir) = &settings.postgresql.bin_dir
        && !bin_dir.join("postgres").is_file()
    {
        problems.push(format!(
            "postgresql.bin_dir: there is no program postgres in {}: install PostgreSQL, or correct it",
            bin_dir.display()
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::host;
    use std::collections::BTreeMap;
    use std::net::TcpListener;

    #[test]
    fn what_is_in_the_way_on_this_host_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let yaml = format!(
            "{{scope: demo, name: n1, restapi: {{listen: '127.0.0.1:{port}'}}, etcd3: {{host: '127.0.0.1'}}, \
             postgresql: {{listen: '127.0.0.1:{port}', data_dir: /data, bin_dir: /nowhere, authentication: {{replication: {{username: r}}}}}}}}"
        );
        let env = BTreeMap::from([(settings::CONFIGURATION.to_owned(), yaml)]);
        let settings = settings::load_environment(&env).unwrap().settings;
        let problems = host(&settings, false);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("restapi.listen") && problems[2].contains("/nowhere"), "{problems:?}");
        assert_eq!(host(&settings, true).len(), 1);
    }
}
