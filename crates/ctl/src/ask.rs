//! Questions to the person at the terminal, in patronictl's words and with its habits: answers may also come through a
//! pipe, an answer that is none is asked for again, and the end of input aborts the command.

use crate::failure::{Failure, Outcome};
use std::io::{BufRead, IsTerminal, Write};

/// Where answers come from; tests give them.
pub(crate) trait Answers {
    /// One line, without its end; `None` at the end of input.
    fn line(&mut self, prompt: &str) -> Option<String>;
    /// Says something between two questions.
    fn say(&mut self, text: &str);
}

/// The terminal.
pub(crate) struct Terminal;

impl Answers for Terminal {
    fn line(&mut self, prompt: &str) -> Option<String> {
        let mut out = std::io::stdout();
        let asked = write!(out, "{prompt}").and_then(|()| out.flush());
        let mut line = String::new();
        match asked.and_then(|()| std::io::stdin().lock().read_line(&mut line)) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim().to_owned()),
        }
    }

    fn say(&mut self, text: &str) {
        let mut out = std::io::stdout();
        let _closed = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// Asks `question`, offering `default`; an empty answer takes it.
pub(crate) fn text(answers: &mut dyn Answers, question: &str, default: &str) -> Result<String, Failure> {
    let answer = answers.line(&format!("{question} [{default}]: ")).ok_or_else(Failure::aborted)?;
    Ok(if answer.is_empty() { default.to_owned() } else { answer })
}

/// Asks `question` until there is an answer.
pub(crate) fn needed(answers: &mut dyn Answers, question: &str) -> Result<String, Failure> {
    loop {
        let answer = answers.line(&format!("{question}: ")).ok_or_else(Failure::aborted)?;
        if !answer.is_empty() {
            return Ok(answer);
        }
    }
}

/// Asks for a secret; a terminal does not show what is typed.
pub(crate) fn secret(question: &str) -> Result<String, Failure> {
    let fail = |error: std::io::Error| Failure::refused(format!("failed to read the password: {error}"));
    let stdin = std::io::stdin();
    let mut err = std::io::stderr();
    write!(err, "{question}").and_then(|()| err.flush()).map_err(fail)?;
    let _hidden = Hidden::new();
    let mut line = String::new();
    let count = stdin.lock().read_line(&mut line).map_err(fail)?;
    writeln!(err).map_err(fail)?;
    if count == 0 { Err(Failure::aborted()) } else { Ok(line.trim_end_matches(['\n', '\r']).to_owned()) }
}

/// A terminal that does not show what is typed, until this value ends.
struct Hidden;

impl Hidden {
    fn new() -> Hidden {
        echo("-echo");
        Hidden
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        echo("echo");
    }
}

/// Shows again what is typed, for a process that ends in the middle of a secret.
pub(crate) fn show_typing() {
    echo("echo");
}

fn echo(mode: &str) {
    if std::io::stdin().is_terminal() {
        let _unchanged = std::process::Command::new("stty").arg(mode).status();
    }
}

/// Asks for a yes or a no; no unless said.
pub(crate) fn yes(answers: &mut dyn Answers, question: &str) -> Result<bool, Failure> {
    loop {
        let answer = answers.line(&format!("{question} [y/N]: ")).ok_or_else(Failure::aborted)?;
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => answers.say("Error: invalid input"),
        }
    }
}

/// Asks for a yes; a no ends the command with `otherwise`.
pub(crate) fn confirm(answers: &mut dyn Answers, question: &str, otherwise: &str) -> Outcome {
    if yes(answers, question)? { Ok(()) } else { Err(Failure::refused(otherwise)) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Answers, confirm, needed, text};

    /// Answers written beforehand, and what was seen.
    pub(crate) struct Script {
        pub answers: Vec<&'static str>,
        pub seen: Vec<String>,
    }

    impl Script {
        pub(crate) fn new(answers: &[&'static str]) -> Script {
            let mut answers = answers.to_vec();
            answers.reverse();
            Script { answers, seen: Vec::new() }
        }
    }

    impl Answers for Script {
        fn line(&mut self, prompt: &str) -> Option<String> {
            self.seen.push(prompt.to_owned());
            self.answers.pop().map(str::to_owned)
        }

        fn say(&mut self, text: &str) {
            self.seen.push(text.to_owned());
        }
    }

    #[test]
    fn an_empty_answer_takes_the_default() {
        let mut script = Script::new(&["", "pg-2"]);
        assert_eq!(text(&mut script, "Primary", "pg-1").unwrap(), "pg-1");
        assert_eq!(text(&mut script, "Primary", "pg-1").unwrap(), "pg-2");
        assert_eq!(script.seen, ["Primary [pg-1]: ", "Primary [pg-1]: "]);
    }

    #[test]
    fn without_a_default_it_is_asked_again() {
        let mut script = Script::new(&["", "x"]);
        assert_eq!(needed(&mut script, "Name").unwrap(), "x");
        assert_eq!(script.seen, ["Name: ", "Name: "]);
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(confirm(&mut Script::new(&["y"]), "Sure?", "no").is_ok());
        let mut script = Script::new(&["what", "YES"]);
        assert!(confirm(&mut script, "Sure?", "no").is_ok());
        assert_eq!(script.seen, ["Sure? [y/N]: ", "Error: invalid input", "Sure? [y/N]: "]);
        for answers in [&[""][..], &["n"]] {
            assert_eq!(confirm(&mut Script::new(answers), "Sure?", "left").unwrap_err().message, "left");
        }
        for answers in [&[][..], &["1", "2", "3"]] {
            assert_eq!(confirm(&mut Script::new(answers), "Sure?", "left").unwrap_err().message, "Aborted!");
        }
    }
}
