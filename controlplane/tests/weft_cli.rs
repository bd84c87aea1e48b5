//! The command `weft` against a daemon: tables, ids, JSON, error lines, exit statuses.
#![allow(clippy::unwrap_used)]

mod small_daemon;

use small_daemon::{Directory, SmallDaemon};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(socket: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .env_remove("WEFT_SOCKET")
        .arg("--socket")
        .arg(socket)
        .args(words)
        .stdin(Stdio::null());
    command
}

fn weft(daemon: &SmallDaemon, words: &[&str]) -> Output {
    command(&daemon.socket(), words).output().unwrap()
}

/// Standard output of what must succeed without a word on standard error.
fn ok(daemon: &SmallDaemon, words: &[&str]) -> String {
    let output = weft(daemon, words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && error.is_empty(),
        "weft {words:?}: {} {error}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of what must fail with status 1.
fn fails(daemon: &SmallDaemon, words: &[&str]) -> String {
    let output = weft(daemon, words);
    assert_eq!(output.status.code(), Some(1), "weft {words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Where each column of a table begins.
fn columns(header: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let gaps = header.match_indices("   ").map(|(at, _)| at);
    for gap in gaps {
        let next = gap + header[gap..].len() - header[gap..].trim_start().len();
        if next < header.len() && starts.last() != Some(&next) {
            starts.push(next);
        }
    }
    starts
}

/// The cells of a table, by the columns of its header.
fn cells(table: &str) -> Vec<Vec<String>> {
    let starts = columns(table.lines().next().unwrap());
    let row = |line: &str| {
        let end = |at: usize| starts.get(at + 1).copied().unwrap_or(line.len()).min(line.len());
        starts
            .iter()
            .enumerate()
            .map(|(at, start)| line.get(*start..end(at)).unwrap_or("").trim_end().to_owned())
            .collect()
    };
    table.lines().map(row).collect()
}

fn furnished() -> SmallDaemon {
    let daemon = SmallDaemon::manager();
    ok(&daemon, &["network", "create", "net1"]);
    ok(&daemon, &["service", "create", "--name", "web", "--network", "net1"]);
    ok(
        &daemon,
        &["network", "connect", "net1", "--netns", "c1", "--name", "c1"],
    );
    ok(
        &daemon,
        &[
            "network",
            "connect",
            "net1",
            "--pid",
            "7",
            "--name",
            "web.1",
            "--service",
            "web",
        ],
    );
    daemon
}

mod network {
    use super::*;

    #[test]
    fn create_prints_the_id_and_ls_shows_it() {
        let daemon = SmallDaemon::manager();
        let id = ok(
            &daemon,
            &[
                "network",
                "create",
                "-d",
                "overlay",
                "--attachable",
                "--label",
                "a=b",
                "my-network",
            ],
        );
        let id = id.strip_suffix('\n').unwrap();
        assert!(
            id.len() == 25 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
            "{id}"
        );
        let table = cells(&ok(&daemon, &["network", "ls"]));
        assert_eq!(table[0], ["NETWORK ID", "NAME", "DRIVER", "SCOPE"]);
        assert_eq!(table[1], [&id[..12], "my-network", "overlay", "swarm"]);
        assert_eq!(table.len(), 2);
        assert_eq!(cells(&ok(&daemon, &["network", "ls", "--no-trunc"]))[1][0], id);
        assert_eq!(ok(&daemon, &["network", "ls", "-q"]), format!("{}\n", &id[..12]));
    }

    #[test]
    fn ls_is_docker_s_table_to_the_space() {
        let daemon = SmallDaemon::manager();
        assert_eq!(ok(&daemon, &["network", "ls"]), "NETWORK ID   NAME   DRIVER   SCOPE\n");
        let id = ok(&daemon, &["network", "create", "a"]);
        let expected = format!(
            "NETWORK ID     NAME   DRIVER    SCOPE\n{}   a      overlay   swarm\n",
            &id[..12]
        );
        assert_eq!(ok(&daemon, &["network", "ls"]), expected);
    }

    #[test]
    fn ls_as_json_is_an_object_a_line() {
        let daemon = furnished();
        let text = ok(&daemon, &["network", "ls", "--format", "json"]);
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0]["Name"], "net1");
    }

    #[test]
    fn inspect_is_an_array_indented_by_four() {
        let daemon = furnished();
        let text = ok(&daemon, &["network", "inspect", "net1"]);
        assert!(
            text.starts_with("[\n    {\n        \"Name\": \"net1\",\n        \"Id\": \""),
            "{text}"
        );
        assert!(text.ends_with("    }\n]\n"), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed[0]["Containers"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn inspect_shows_what_is_there_and_fails_for_what_is_not() {
        let daemon = furnished();
        let output = weft(&daemon, &["network", "inspect", "nope", "net1"]);
        assert_eq!(output.status.code(), Some(1));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found.as_array().unwrap().len(), 1);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.starts_with("Error response from daemon: ") && error.contains("nope"),
            "{error}"
        );
    }

    #[test]
    fn options_reach_the_daemon() {
        let daemon = SmallDaemon::manager();
        let vxlan = "com.docker.network.driver.overlay.vxlanid_list=5000";
        ok(
            &daemon,
            &[
                "network",
                "create",
                "--subnet",
                "192.168.7.0/24",
                "--gateway",
                "192.168.7.9",
                "-o",
                vxlan,
                "n",
            ],
        );
        let parsed: serde_json::Value = serde_json::from_str(&ok(&daemon, &["network", "inspect", "n"])).unwrap();
        assert_eq!(parsed[0]["IPAM"]["Config"][0]["Gateway"], "192.168.7.9");
        assert_eq!(
            parsed[0]["Options"]["com.docker.network.driver.overlay.vxlanid_list"],
            "5000"
        );
    }

    #[test]
    fn one_named_create_is_like_any_other() {
        let daemon = SmallDaemon::manager();
        ok(&daemon, &["network", "create", "create"]);
        ok(
            &daemon,
            &["service", "create", "--name", "create", "--network", "create"],
        );
        assert!(ok(&daemon, &["service", "inspect", "create"]).contains("\"Name\": \"create\""));
        assert_eq!(ok(&daemon, &["service", "rm", "create"]), "create\n");
        assert!(ok(&daemon, &["network", "inspect", "create"]).contains("\"Name\": \"create\""));
        assert_eq!(ok(&daemon, &["network", "rm", "create"]), "create\n");
        assert!(fails(&daemon, &["network", "inspect", "create"]).contains("create"));
    }

    #[test]
    fn rm_prints_what_went_and_fails_for_the_rest() {
        let daemon = furnished();
        ok(&daemon, &["network", "create", "net2"]);
        let output = weft(&daemon, &["network", "rm", "net2", "nope", "net1"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "net2\n");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error.lines().count(), 2, "{error}");
        assert!(
            error
                .lines()
                .all(|line| line.starts_with("Error response from daemon: ")),
            "{error}"
        );
    }

    #[test]
    fn connect_is_silent_unless_asked_to_tell() {
        let daemon = furnished();
        assert_eq!(
            ok(
                &daemon,
                &["network", "connect", "net1", "--netns", "/run/netns/x", "--name", "c2"]
            ),
            ""
        );
        let words = [
            "network",
            "connect",
            "net1",
            "--netns",
            "x",
            "--name",
            "c3",
            "--ip",
            "10.0.0.77",
            "--alias",
            "db",
            "-v",
        ];
        let told: serde_json::Value = serde_json::from_str(&ok(&daemon, &words)).unwrap();
        assert_eq!(told["IPv4Address"], "10.0.0.77/24");
        assert_eq!(ok(&daemon, &["network", "disconnect", "net1", "c3"]), "");
        let error = fails(&daemon, &["network", "disconnect", "net1", "c3"]);
        assert!(
            error.starts_with("Error response from daemon: ") && error.contains("c3"),
            "{error}"
        );
    }
}

mod service {
    use super::*;

    #[test]
    fn ls_shows_mode_tasks_and_vip() {
        let daemon = furnished();
        ok(
            &daemon,
            &[
                "service",
                "create",
                "--name",
                "rr",
                "--network",
                "net1",
                "--endpoint-mode",
                "dnsrr",
            ],
        );
        let table = cells(&ok(&daemon, &["service", "ls"]));
        assert_eq!(table[0], ["ID", "NAME", "MODE", "POLICY", "TASKS", "VIRTUAL IP"]);
        assert_eq!(table[1][1..], ["rr", "dnsrr", "-", "0/0", ""]);
        assert_eq!(table[2][1..5], ["web", "vip", "round-robin", "1/1"]);
        assert!(
            table[2][5].starts_with("10.0.0.") && table[2][5].ends_with("/24"),
            "{table:?}"
        );
        assert_eq!(table[2][0].len(), 12);
    }

    #[test]
    fn ps_shows_where_the_tasks_are() {
        let daemon = furnished();
        let table = cells(&ok(&daemon, &["service", "ps", "web"]));
        assert_eq!(
            table[0],
            [
                "ID",
                "NAME",
                "NODE",
                "DESIRED STATE",
                "CURRENT STATE",
                "ADDRESS",
                "WEIGHT"
            ]
        );
        assert_eq!(table[1][1..5], ["web.1", "node1", "Running", "Running"]);
        assert!(table[1][5].starts_with("10.0.0."), "{table:?}");
        assert_eq!(table[1][6], "1");
        assert_eq!(table.len(), 2);
        assert!(fails(&daemon, &["service", "ps", "nope"]).contains("nope"));
    }

    #[test]
    fn update_changes_policy_affinity_and_weights() {
        let daemon = furnished();
        let words = ["service", "update", "--policy", "maglev", "--affinity", "60", "web"];
        assert_eq!(ok(&daemon, &words), "web\n");
        let parsed: serde_json::Value = serde_json::from_str(&ok(&daemon, &["service", "inspect", "web"])).unwrap();
        let spec = &parsed[0]["Spec"]["EndpointSpec"];
        assert_eq!((&spec["Policy"], &spec["Affinity"]), (&"maglev".into(), &60.into()));
        assert_eq!(cells(&ok(&daemon, &["service", "ls"]))[1][3], "maglev");
        ok(&daemon, &["service", "update", "--weight", "web.1=0", "web"]);
        assert_eq!(cells(&ok(&daemon, &["service", "ps", "web"]))[1][6], "0");
        let weighted = [
            "network",
            "connect",
            "net1",
            "--pid",
            "8",
            "--name",
            "web.2",
            "--service",
            "web",
            "--weight",
            "3",
        ];
        ok(&daemon, &weighted);
        assert_eq!(cells(&ok(&daemon, &["service", "ps", "web"]))[2][6], "3");
        let error = fails(&daemon, &["service", "update", "--weight", "web.9=1", "web"]);
        assert!(
            error.contains("it should be one of its tasks (web.1, web.2)"),
            "{error}"
        );
    }

    #[test]
    fn create_takes_a_policy_and_an_affinity() {
        let daemon = furnished();
        let options = ["--policy", "least-connections", "--affinity", "5"];
        let words = ["service", "create", "--name", "db", "--network", "net1"];
        ok(&daemon, &[&words[..], &options].concat());
        let table = cells(&ok(&daemon, &["service", "ls"]));
        assert_eq!(table[1][1..4], ["db", "vip", "least-connections"]);
    }

    #[test]
    fn inspect_and_rm() {
        let daemon = furnished();
        let parsed: serde_json::Value = serde_json::from_str(&ok(&daemon, &["service", "inspect", "web"])).unwrap();
        assert_eq!(parsed[0]["Endpoint"]["VirtualIPs"].as_array().unwrap().len(), 1);
        assert!(fails(&daemon, &["service", "rm", "web"]).starts_with("Error response from daemon: "));
        ok(&daemon, &["network", "disconnect", "net1", "web.1"]);
        assert_eq!(ok(&daemon, &["service", "rm", "web"]), "web\n");
        assert_eq!(cells(&ok(&daemon, &["service", "ls"])).len(), 1);
    }
}

mod cluster {
    use super::*;

    #[test]
    fn init_tells_how_to_join_and_quietly_only_the_token() {
        let daemon = SmallDaemon::outside();
        let text = ok(&daemon, &["cluster", "init"]);
        let line = text
            .lines()
            .find(|line| line.starts_with("    weft cluster join --token "))
            .expect(&text);
        let token = ok(&daemon, &["cluster", "join-token", "-q"]);
        assert_eq!(
            line.trim(),
            format!("weft cluster join --token {} 127.0.0.1:2377", token.trim_end())
        );
        assert_eq!(token.lines().count(), 1);
        let error = fails(&daemon, &["cluster", "init"]);
        assert_eq!(error, "Error response from daemon: this node is in a cluster already\n");
    }

    #[test]
    fn init_quietly_is_for_scripts() {
        let daemon = SmallDaemon::outside();
        let token = ok(&daemon, &["cluster", "init", "-q"]);
        assert_eq!(token, ok(&daemon, &["cluster", "join-token", "-q"]));
    }

    #[test]
    fn the_printed_line_can_be_run() {
        let (manager, joiner) = (SmallDaemon::outside(), SmallDaemon::outside());
        let text = ok(&manager, &["cluster", "init"]);
        let line = text.lines().find_map(|line| line.trim().strip_prefix("weft ")).unwrap();
        ok(&joiner, &line.split(' ').collect::<Vec<_>>());
        let joins = joiner.joins.lock().unwrap();
        assert_eq!(joins[0].manager, "127.0.0.1:2377");
        assert!(joins[0].token.starts_with("WFTKN-1-"));
    }

    #[test]
    fn nodes_are_listed_with_a_mark_at_this_one() {
        let daemon = SmallDaemon::manager();
        let text = ok(&daemon, &["node", "ls"]);
        let table = cells(&text);
        assert_eq!(table[0], ["ID", "HOSTNAME", "STATUS", "ROLE", "ADDRESS"]);
        assert!(table[1][0].ends_with(" *"), "{text}");
        assert_eq!(table[1][1..], ["node1", "Ready", "Manager", "127.0.0.1"]);
    }

    #[test]
    fn a_key_file_without_end_is_no_key() {
        let daemon = furnished();
        for words in [
            ["rotate-keys", "--key-file", "/dev/zero"],
            ["init", "--gossip-key-file", "/dev/zero"],
        ] {
            let told = fails(&daemon, &[&["cluster"], &words[..]].concat());
            assert!(
                told.contains("gossip key file /dev/zero: it is neither base64 nor hex"),
                "{told}"
            );
        }
    }

    #[test]
    fn leave_needs_force_at_the_manager() {
        let daemon = SmallDaemon::manager();
        assert!(fails(&daemon, &["cluster", "leave"]).contains("force"));
        ok(&daemon, &["cluster", "leave", "--force"]);
        let error = fails(&daemon, &["network", "ls"]);
        assert_eq!(error, "Error response from daemon: this node is not in a cluster\n");
        let info = ok(&daemon, &["info"]);
        for line in [
            "Name: node1\n",
            "Gossip Refused: 1 in the clear, 2 with other keys\n",
            "Gossip Dropped: 3 messages, for newer ones\n",
            "Gossip Repair: 4 comparisons asked for, 5 networks found different, 6 rows sent\n",
            "Maps:\n peers: 2 of 3, full: 4 left out, max-peers sets more\n flows: 8 of 8, full: max-flows sets more\n",
            "Flow Time-outs: TCP opening 120 s, established 432000 s, finished 120 s, reset 10 s; UDP 30 s, answered 180 s\n",
            "Flows Refused: 7, for a full table\n",
        ] {
            assert!(info.contains(line), "{info}");
        }
        assert_eq!(ok(&daemon, &["status"]), info);
    }
}

mod the_command_itself {
    use super::*;

    #[test]
    fn without_a_daemon_it_says_so() {
        let directory = Directory::new();
        let socket = directory.0.join("weft.sock");
        let output = command(&socket, &["network", "ls"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        let start = format!("Cannot connect to the weft daemon at unix://{}", socket.display());
        assert!(
            error.starts_with(&start) && error.ends_with("Is weftd running?\n"),
            "{error}"
        );
    }

    #[test]
    fn the_socket_may_come_from_the_environment() {
        let daemon = furnished();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        let output = command
            .env("WEFT_SOCKET", daemon.socket())
            .args(["network", "ls", "-q"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout.len(), 13);
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        let daemon = SmallDaemon::manager();
        // More than a pipe holds (pipe(7): 64 KiB), so that the command is still writing when its reader goes.
        let label = format!("text={}", "x".repeat(4000));
        let labels: Vec<String> = (0..30).map(|at| format!("{at}{label}")).collect();
        let mut words = vec!["network", "create"];
        words.extend(labels.iter().flat_map(|label| ["--label", label]));
        words.push("large");
        ok(&daemon, &words);
        let mut child = command(&daemon.socket(), &["network", "inspect", "large"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 16];
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut first).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}", output.status);
    }

    #[test]
    fn wrong_words_are_told_with_what_would_be_right() {
        let daemon = SmallDaemon::manager();
        for (words, expected) in [
            (&["nonsense"][..], "nonsense"),
            (&["network", "connect", "net1", "--name", "c"], "--netns"),
            (
                &[
                    "network", "connect", "net1", "--netns", "a", "--pid", "1", "--name", "c",
                ],
                "cannot be used with",
            ),
            (&["network", "connect", "net1", "--pid", "x", "--name", "c"], "x"),
            (&["network", "create", "--gateway", "x", "n"], "x"),
            (&["network", "create", "--label", "=v", "n"], "KEY=VALUE"),
            (&["network", "rm"], "NETWORK"),
            (&["service", "create", "--name", "s"], "--network"),
            (&["service", "update", "s"], "--policy"),
            (&["service", "update", "--policy", "random", "s"], "least-connections"),
            (&["service", "update", "--weight", "web.1", "s"], "TASK=N"),
            (
                &["network", "connect", "n", "--pid", "1", "--name", "c", "--weight", "2"],
                "--service",
            ),
            (
                &[
                    "service",
                    "create",
                    "--name",
                    "s",
                    "--network",
                    "n",
                    "--endpoint-mode",
                    "x",
                ],
                "dnsrr",
            ),
        ] {
            let output = weft(&daemon, words);
            assert_eq!(output.status.code(), Some(2), "weft {words:?}: {output:?}");
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.contains(expected), "weft {words:?}: {error}");
        }
    }

    #[test]
    fn an_answer_that_is_no_http_is_told() {
        let directory = Directory::new();
        let socket = directory.0.join("weft.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(b"no http here\r\n\r\n");
        });
        let output = command(&socket, &["network", "ls"]).output().unwrap();
        other.join().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("unix://") && error.lines().count() == 1, "{error}");
    }

    #[test]
    fn help_and_version() {
        let daemon = SmallDaemon::outside();
        assert!(ok(&daemon, &["--help"]).contains("network"));
        assert_eq!(
            ok(&daemon, &["--version"]),
            format!("weft {}\n", env!("CARGO_PKG_VERSION"))
        );
    }
}
