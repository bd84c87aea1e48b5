//! What is wrong with a command line, in one line.

use clap::error::ErrorKind;
use std::process::ExitCode;

/// The exit code for a command line that is not understood, as clap and Docker have it.
const USAGE: u8 = 2;

/// Tells what is wrong and where the help is, in one line on standard error. Help and version that were asked for are printed whole.
pub fn tell(program: &str, error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.exit()
        }
        _ => {
            eprintln!("{program}: {}", one_line(&error.render().to_string()));
            ExitCode::from(USAGE)
        }
    }
}

/// The first paragraph of clap's text, and the command whose help tells more.
fn one_line(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let message = words.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    // A usage begins with the command's words; its arguments follow.
    let command: Vec<&str> = text
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "))
        .into_iter()
        .flat_map(str::split_whitespace)
        .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    if command.is_empty() {
        format!("{message}; --help tells more")
    } else {
        format!("{message}; `{} --help` tells more", command.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn paragraphs_become_a_line() {
        for (text, line) in [
            (
                "error: unexpected argument '--frob' found\n\n  tip: no\n\nUsage: weft network ls [OPTIONS]\n\nFor more information, try '--help'.\n",
                "unexpected argument '--frob' found; `weft network ls --help` tells more",
            ),
            (
                "error: the following required arguments were not provided:\n  --name <NAME>\n  <NETWORK>\n\nUsage: weft network connect --name <NAME> <NETWORK>\n",
                "the following required arguments were not provided: --name <NAME> <NETWORK>; `weft network connect --help` tells more",
            ),
            (
                "error: invalid value 'x' for '--ip <IP>': invalid IPv4 address syntax\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--ip <IP>': invalid IPv4 address syntax; --help tells more",
            ),
            ("", "; --help tells more"),
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}
