//! Flags, as Go's `flag` package takes them: `-x`, `--x`, `-x=v`, `-x v`.

use crate::golang::quote;
use std::time::Duration;

/// What the command was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) ip: String,
    pub(crate) port: i64,
    pub(crate) network: String,
    pub(crate) table: Option<Table>,
    pub(crate) remediate: bool,
    pub(crate) join: bool,
    pub(crate) verbose: bool,
    pub(crate) json: bool,
    pub(crate) timeout: Option<Duration>,
}

/// A table that the command can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// `-t sd`.
    Endpoints,
    /// `-t overlay`.
    Peers,
}

impl Table {
    /// Its name in the gossip.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Endpoints => "endpoint_table",
            Table::Peers => "overlay_peer_table",
        }
    }
}

/// Why there are no flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The usage was asked for.
    Help,
    /// What is wrong.
    Wrong(String),
}

/// A flag: its name, the kind of value it takes (none for a switch), its help, how it is set.
struct Definition {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Flags, &str) -> Result<(), &'static str>,
}

const fn flag(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: fn(&mut Flags, &str) -> Result<(), &'static str>,
) -> Definition {
    Definition { name, value, help, set }
}

/// All flags, by name.
const FLAGS: &[Definition] = &[
    flag("a", "", "join/leave network", |flags, value| {
        switch(value).map(|on| flags.join = on)
    }),
    flag("ip", "string", "ip address (default \"127.0.0.1\")", |flags, value| {
        text(value).map(|ip| flags.ip = ip)
    }),
    flag(
        "json",
        "",
        "print what was found as JSON to standard output",
        |flags, value| switch(value).map(|on| flags.json = on),
    ),
    flag("net", "string", "target network", |flags, value| {
        text(value).map(|network| flags.network = network)
    }),
    flag("port", "int", "port (default 2000)", |flags, value| {
        integer(value).map(|port| flags.port = port)
    }),
    flag(
        "r",
        "",
        "perform remediation deleting orphan entries",
        |flags, value| switch(value).map(|on| flags.remediate = on),
    ),
    flag("t", "string", "table to process <sd/overlay>", |flags, value| {
        flags.table = match value {
            "sd" => Some(Table::Endpoints),
            "overlay" => Some(Table::Peers),
            _ => None,
        };
        Ok(())
    }),
    flag(
        "timeout",
        "duration",
        "time limit of each request as 500ms or 1m30s, no limit if 0",
        |flags, value| duration(value).map(|limit| flags.timeout = Some(limit).filter(|limit| !limit.is_zero())),
    ),
    flag("v", "", "verbose output", |flags, value| {
        switch(value).map(|on| flags.verbose = on)
    }),
];

/// Reads the arguments after the program's name. What follows the first argument that is no flag is ignored.
pub(crate) fn parse(args: &[String]) -> Result<Flags, Stop> {
    let mut flags = Flags {
        ip: "127.0.0.1".to_owned(),
        port: 2000,
        network: String::new(),
        table: None,
        remediate: false,
        join: false,
        verbose: false,
        json: false,
        timeout: None,
    };
    let mut rest = args.iter();
    while let Some(argument) = rest.next() {
        let Some(name) = argument.strip_prefix('-').filter(|name| !name.is_empty()) else {
            break;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.is_empty() {
            break;
        }
        if name.starts_with(['-', '=']) {
            return Err(Stop::Wrong(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = name
            .split_once('=')
            .map_or((name, None), |(name, value)| (name, Some(value)));
        let definition = find(name)?;
        let value = match value {
            Some(value) => value,
            None if definition.value.is_empty() => "true",
            None => rest
                .next()
                .ok_or_else(|| Stop::Wrong(format!("flag needs an argument: -{name}")))?,
        };
        (definition.set)(&mut flags, value).map_err(|reason| {
            let value = quote(value.as_bytes());
            Stop::Wrong(if definition.value.is_empty() {
                format!("invalid boolean value {value} for -{name}: {reason}")
            } else {
                format!("invalid value {value} for flag -{name}: {reason}")
            })
        })?;
    }
    Ok(flags)
}

fn find(name: &str) -> Result<&'static Definition, Stop> {
    FLAGS.iter().find(|flag| flag.name == name).ok_or_else(|| match name {
        "h" | "help" => Stop::Help,
        _ => Stop::Wrong(format!("flag provided but not defined: -{name}")),
    })
}

/// The usage block.
pub(crate) fn usage(program: &str) -> String {
    let mut text = format!("Usage of {program}:\n");
    for Definition { name, value, help, .. } in FLAGS {
        let separator = if value.is_empty() && name.len() == 1 {
            "\t"
        } else {
            "\n    \t"
        };
        let value = if value.is_empty() {
            String::new()
        } else {
            format!(" {value}")
        };
        text.push_str(&format!("  -{name}{value}{separator}{help}\n"));
    }
    text
}

fn text(value: &str) -> Result<String, &'static str> {
    Ok(value.to_owned())
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("parse error"),
    }
}

/// Decimal, or with a prefix `0x`, `0o`, `0b` or `0`.
fn integer(value: &str) -> Result<i64, &'static str> {
    let (sign, digits) = match value.strip_prefix(['+', '-']) {
        Some(digits) => (&value[..1], digits),
        None => ("", value),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let prefixed = prefixes.iter().find_map(|(prefix, radix)| {
        lower
            .strip_prefix(prefix)
            .filter(|digits| !digits.is_empty())
            .map(|digits| (digits, *radix))
    });
    let (digits, radix) = prefixed.unwrap_or((&lower, 10));
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("parse error");
    }
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|error| match error.kind() {
        std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
        _ => "parse error",
    })
}

/// Numbers with units, as `1m30s` or `0.5s`; `0` needs none.
fn duration(value: &str) -> Result<Duration, &'static str> {
    if value == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = value;
    while !rest.is_empty() || value.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or("parse error")?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds_a_unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err("parse error"),
        };
        let number: f64 = number.parse().map_err(|_| "parse error")?;
        let part = Duration::try_from_secs_f64(number * seconds_a_unit).map_err(|_| "value out of range")?;
        total = total.checked_add(part).ok_or("value out of range")?;
        rest = after;
    }
    Ok(total)
}
