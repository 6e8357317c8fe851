//! Questions to the person at the terminal, in patronictl's words. Where nobody can answer (standard input is no
//! terminal) nothing is assumed: the command ends and says that `--force` goes on without asking.

use crate::failure::{Failure, Outcome};
use std::io::{BufRead, IsTerminal, Write};

/// Where answers come from; tests give them.
pub(crate) trait Answers {
    /// One line, without its end; `None` at the end of input.
    fn line(&mut self, prompt: &str) -> Option<String>;
    /// Whether a person is there to answer.
    fn attended(&self) -> bool;
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

    fn attended(&self) -> bool {
        std::io::stdin().is_terminal()
    }
}

/// Asks `question`, offering `default`; an empty answer takes it.
pub(crate) fn text(
    answers: &mut dyn Answers,
    question: &str,
    default: Option<&str>,
) -> Result<String, Failure> {
    attended(answers, question)?;
    let shown = default.map_or(String::new(), |default| format!(" [{default}]"));
    let answer = answers.line(&format!("{question}{shown}: ")).ok_or_else(aborted)?;
    if answer.is_empty() { Ok(default.unwrap_or_default().to_owned()) } else { Ok(answer) }
}

/// Asks for a yes; anything else ends the command with `otherwise`.
pub(crate) fn confirm(answers: &mut dyn Answers, question: &str, otherwise: &str) -> Outcome {
    attended(answers, question)?;
    for _ in 0..3 {
        let answer = answers.line(&format!("{question} [y/N]: ")).ok_or_else(aborted)?;
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => return Ok(()),
            "" | "n" | "no" => return Err(Failure::refused(otherwise)),
            _ => continue,
        }
    }
    Err(Failure::refused(otherwise))
}

fn attended(answers: &dyn Answers, question: &str) -> Outcome {
    if answers.attended() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "nobody is there to answer {question:?}: standard input is no terminal; use --force to go on without questions"
    )))
}

fn aborted() -> Failure {
    Failure::refused("aborted; nothing was changed")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Answers, confirm, text};

    /// Answers written beforehand, and the prompts that were seen.
    pub(crate) struct Script {
        pub answers: Vec<&'static str>,
        pub seen: Vec<String>,
        pub attended: bool,
    }

    impl Script {
        pub(crate) fn new(answers: &[&'static str]) -> Script {
            let mut answers = answers.to_vec();
            answers.reverse();
            Script { answers, seen: Vec::new(), attended: true }
        }
    }

    impl Answers for Script {
        fn line(&mut self, prompt: &str) -> Option<String> {
            self.seen.push(prompt.to_owned());
            self.answers.pop().map(str::to_owned)
        }

        fn attended(&self) -> bool {
            self.attended
        }
    }

    #[test]
    fn an_empty_answer_takes_the_default() {
        let mut script = Script::new(&["", "pg-2"]);
        assert_eq!(text(&mut script, "Primary", Some("pg-1")).unwrap(), "pg-1");
        assert_eq!(text(&mut script, "Primary", Some("pg-1")).unwrap(), "pg-2");
        assert_eq!(script.seen, ["Primary [pg-1]: ", "Primary [pg-1]: "]);
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(confirm(&mut Script::new(&["y"]), "Sure?", "no").is_ok());
        assert!(confirm(&mut Script::new(&["what", "YES"]), "Sure?", "no").is_ok());
        for answers in [&[""][..], &["n"], &["1", "2", "3"]] {
            assert_eq!(confirm(&mut Script::new(answers), "Sure?", "left").unwrap_err().message, "left");
        }
        assert!(confirm(&mut Script::new(&[]), "Sure?", "left").unwrap_err().message.starts_with("aborted"));
    }

    #[test]
    fn where_nobody_answers_the_command_ends() {
        let mut script = Script { attended: false, ..Script::new(&["y"]) };
        let failure = confirm(&mut script, "Sure?", "left").unwrap_err();
        assert!(failure.message.contains("--force"), "{failure}");
        assert!(script.seen.is_empty());
    }
}
