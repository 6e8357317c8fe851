//! The terminal: lines that stay, and one page that is drawn again where it stands. Without a terminal, lines only.

use std::io::{IsTerminal, Write, stdout};

pub(super) struct Screen {
    terminal: bool,
    drawn: bool,
    last: String,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen { terminal: stdout().is_terminal(), drawn: false, last: String::new() }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    /// The page. It is drawn only when it changed, so that text can be selected in it.
    pub(super) fn draw(&mut self, page: &str) {
        if page == self.last {
            return;
        }
        page.clone_into(&mut self.last);
        if !self.terminal {
            self.write(&format!("{page}\n"));
            return;
        }
        // Home, every line cleared to its end, then everything below.
        let start = if self.drawn { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        self.drawn = true;
        let lines: String = page.lines().map(|line| format!("{line}\x1b[K\r\n")).collect();
        self.write(&format!("{start}{lines}\x1b[J"));
    }

    fn write(&self, text: &str) {
        // Nobody may be listening any more; the cluster is to be ended in order all the same.
        let mut out = stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
