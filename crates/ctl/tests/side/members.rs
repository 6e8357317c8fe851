//! Three members that answer every order, well or with a refusal, and remember what was asked.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use testbed::free_port;

/// The members' REST APIs.
pub(crate) struct Members {
    ports: [u16; 3],
    nobody: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    refuse: bool,
    asked: Vec<String>,
}

impl Members {
    pub(crate) fn start() -> Members {
        let state = Arc::new(Mutex::new(State::default()));
        let ports = [1, 2, 3].map(|number| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let state = Arc::clone(&state);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    answer(stream.unwrap(), number, &state);
                }
            });
            port
        });
        Members { ports, nobody: free_port(), state }
    }

    /// Where the four members say that they are; the fourth is where the first is.
    pub(crate) fn ports(&self, dead: bool) -> [u16; 4] {
        let [one, two, three] = self.ports;
        if dead { [self.nobody; 4] } else { [one, two, three, one] }
    }

    pub(crate) fn begin(&self, refuse: bool) {
        *self.state.lock().unwrap() = State { refuse, asked: Vec::new() };
    }

    /// What was asked, in its order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

fn answer(stream: TcpStream, number: usize, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or_default() == 0 || line.trim().is_empty() {
            break;
        }
        head.push(line);
    }
    let Some(first) = head.first() else { return };
    let (verb, path) = (word(first, 0), word(first, 1));
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).unwrap();
    let mut state = state.lock().unwrap();
    state.asked.push(format!("{number} {verb} {path} {}", tidy(&String::from_utf8_lossy(&body))));
    let (status, text) = reply(&verb, &path, state.refuse);
    drop(state);
    let _gone = write!(reader.get_mut(), "HTTP/1.0 {status} X\r\nServer: test\r\n\r\n{text}");
}

fn word(line: &str, at: usize) -> String {
    line.split(' ').nth(at).unwrap_or_default().to_owned()
}

/// The body as JSON with sorted keys; an empty candidate is none.
fn tidy(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(mut map)) => {
            map.retain(|_, value| !value.as_str().is_some_and(str::is_empty));
            map.sort_keys();
            Value::Object(map).to_string()
        }
        _ => body.to_owned(),
    }
}

fn reply(verb: &str, path: &str, refuse: bool) -> (u16, &'static str) {
    match (verb, path, refuse) {
        ("POST", "/switchover" | "/failover", false) => (200, "Successfully switched over to \"pg-2\""),
        ("POST", "/switchover" | "/failover", true) => (412, "leader name does not match"),
        ("POST", "/restart", false) => (202, "Restart scheduled"),
        ("POST", "/restart", true) => (503, "restart conditions are not satisfied"),
        ("POST", "/reload", false) => (202, "reload scheduled"),
        ("POST", "/reinitialize", false) => (200, "reinitialize started"),
        ("POST", "/reinitialize", true) => (503, "restart already in progress"),
        ("DELETE", "/restart", _) => (200, "scheduled restart deleted"),
        ("DELETE", "/switchover", _) => (200, "scheduled switchover deleted"),
        ("PATCH", "/config", false) => (200, "{}"),
        (_, _, _) => (500, "no"),
    }
}
