//! Commands as a user would type them, and what they print.

use weft_tests::interrupt;
use weft_tests::rig::{Container, Error, Host, Result};

/// Begins a part of the demo.
pub(crate) fn heading(text: &str) {
    println!("\n== {text}");
}

/// Says something that is not a command.
pub(crate) fn note(text: &str) {
    println!("   ({text})");
}

/// `weft` on a host, as typed where its socket is the default one.
pub(crate) fn on_host(host: &Host, arguments: &[&str]) -> Result<String> {
    check_interrupt()?;
    println!("{}# weft {}", host.name(), typed(arguments));
    let output = host.weft(arguments)?;
    indent(&output);
    Ok(output)
}

/// Any program on a host.
pub(crate) fn on_host_as_is(host: &Host, program: &str, arguments: &[&str]) -> Result<String> {
    check_interrupt()?;
    println!("{}# {program} {}", host.name(), typed(arguments));
    let output = host.run(program, arguments)?;
    indent(&output);
    Ok(output)
}

/// `weft-test-tool` in a container.
pub(crate) fn show(container: &Container, arguments: &[&str]) -> Result<String> {
    check_interrupt()?;
    println!("{}# weft-test-tool {}", container.name(), typed(arguments));
    let output = container.tool(arguments)?;
    indent(&output);
    Ok(output)
}

fn check_interrupt() -> Result<()> {
    if interrupt::requested() {
        Err(Error::new("interrupted"))
    } else {
        Ok(())
    }
}

/// Words joined by spaces, quoted where a shell would split or read them otherwise.
fn typed(arguments: &[&str]) -> String {
    let plain = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=,".contains(c));
    let quoted: Vec<String> = arguments
        .iter()
        .map(|word| {
            if plain(word) {
                (*word).to_owned()
            } else {
                format!("'{word}'")
            }
        })
        .collect();
    quoted.join(" ")
}

fn indent(output: &str) {
    output.lines().for_each(|line| println!("  {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_shell_would_split_are_quoted() {
        assert_eq!(
            typed(&["-sS", "localhost:2000/gettable?nid=a&tname=b"]),
            "-sS 'localhost:2000/gettable?nid=a&tname=b'"
        );
        assert_eq!(typed(&["cluster", "init", "-q"]), "cluster init -q");
        assert_eq!(typed(&[""]), "''");
    }
}
