//! The tasks that the managers assign to this node, and what each asks of it (`spec/swarm-agent.md` 8.8 to 8.10).
//!
//! This node runs no containers. The one kind of task that it takes is an attachment: an address on a network, held for an endpoint.

use super::proto::{AssignmentsMessage, Task, state};
use std::collections::BTreeMap;

/// Told to the managers of a task that is a container.
pub const RUNS_NOTHING: &str = "this node runs no containers";

/// The kinds of a message, and of a change.
const COMPLETE: i32 = 0;
const UPDATE: i32 = 0;

/// A message follows one that did not arrive: the whole is to be asked for anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("assignments follow {follows:?}, but {last:?} was the last that came")]
pub struct Gap {
    /// The message that it follows.
    pub follows: String,
    /// The last one.
    pub last: String,
}

/// What a message changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// These are all: what is not here is not on record.
    pub complete: bool,
    /// Ids of tasks that are new or different.
    pub updated: Vec<String>,
    /// Tasks that are no longer this node's.
    pub removed: Vec<Task>,
}

/// The tasks of this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    by_id: BTreeMap<String, Task>,
    last: String,
}

/// What a task asks of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// Nothing, or nothing more.
    Nothing,
    /// An answer: this state, and why.
    Report(i32, &'static str),
    /// The address is held for this endpoint, if it is there.
    Hold {
        /// What the node named when it asked.
        endpoint: &'a str,
        /// Whether the managers know that it is held.
        reported: bool,
    },
    /// The endpoint is to give its address up.
    GiveUp {
        /// What the node named when it asked.
        endpoint: &'a str,
    },
}

impl Tasks {
    /// Takes a message.
    pub fn apply(&mut self, message: AssignmentsMessage) -> Result<Changes, Gap> {
        let complete = message.kind == COMPLETE;
        if !complete && message.applies_to != self.last {
            return Err(Gap {
                follows: message.applies_to,
                last: self.last.clone(),
            });
        }
        self.last = message.results_in;
        let before = if complete {
            std::mem::take(&mut self.by_id)
        } else {
            BTreeMap::new()
        };
        let mut changes = Changes {
            complete,
            ..Changes::default()
        };
        for change in message.changes {
            // Secrets, configs and volumes are nothing to this node.
            let Some(task) = change.assignment.and_then(|assignment| assignment.task) else {
                continue;
            };
            if change.action == UPDATE {
                changes.updated.push(task.id.clone());
                self.by_id.insert(task.id.clone(), task);
            } else {
                changes.removed.extend(self.by_id.remove(&task.id));
            }
        }
        changes
            .removed
            .extend(before.into_values().filter(|task| !self.by_id.contains_key(&task.id)));
        Ok(changes)
    }

    /// The task with this id.
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.by_id.get(id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.by_id.values()
    }

    /// The attachment that holds an address for this endpoint.
    pub fn attachment_of(&self, endpoint: &str) -> Option<&Task> {
        self.iter().find(|task| attachment(task) == Some(endpoint))
    }
}

/// The endpoint that an attachment is for; `None` of a task that is none.
pub fn attachment(task: &Task) -> Option<&str> {
    let attachment = task.spec.as_ref()?.attachment.as_ref()?;
    Some(&attachment.container_id)
}

/// What a task asks of this node.
pub fn order(task: &Task) -> Order<'_> {
    let now = task.status.as_ref().map_or(0, |status| status.state);
    let ends = task.desired_state >= state::SHUTDOWN;
    match attachment(task) {
        Some(endpoint) if ends => Order::GiveUp { endpoint },
        Some(endpoint) => Order::Hold {
            endpoint,
            reported: now >= state::RUNNING,
        },
        None if now >= state::COMPLETE => Order::Nothing,
        None if ends => Order::Report(state::SHUTDOWN, ""),
        // A task left without an answer would keep its service waiting for ever.
        None => Order::Report(state::REJECTED, RUNS_NOTHING),
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Assignment, AssignmentChange, AttachmentSpec, TaskSpec, TaskStatus};
    use super::*;

    const REMOVE: i32 = 1;
    const INCREMENTAL: i32 = 1;

    fn task(id: &str, endpoint: Option<&str>, now: i32, desired_state: i32) -> Task {
        let attachment = endpoint.map(|endpoint| AttachmentSpec {
            container_id: endpoint.to_owned(),
        });
        Task {
            id: id.to_owned(),
            spec: Some(TaskSpec { attachment }),
            status: Some(TaskStatus {
                state: now,
                ..TaskStatus::default()
            }),
            desired_state,
            ..Task::default()
        }
    }

    fn message(kind: i32, applies_to: &str, results_in: &str, changes: &[(i32, Task)]) -> AssignmentsMessage {
        let change = |(action, task): &(i32, Task)| AssignmentChange {
            assignment: Some(Assignment {
                task: Some(task.clone()),
            }),
            action: *action,
        };
        AssignmentsMessage {
            kind,
            applies_to: applies_to.to_owned(),
            results_in: results_in.to_owned(),
            changes: changes.iter().map(change).collect(),
        }
    }

    fn ids(tasks: &[Task]) -> Vec<&str> {
        tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[test]
    fn each_task_is_answered_by_its_kind_and_state() {
        for (now, desired, endpoint, wanted) in [
            (192, 512, None, Order::Report(768, RUNS_NOTHING)),
            (192, 384, None, Order::Report(768, RUNS_NOTHING)),
            (512, 640, None, Order::Report(640, "")),
            (192, 800, None, Order::Report(640, "")),
            (768, 512, None, Order::Nothing),
            (640, 640, None, Order::Nothing),
            (
                256,
                512,
                Some("e"),
                Order::Hold {
                    endpoint: "e",
                    reported: false,
                },
            ),
            (
                512,
                512,
                Some("e"),
                Order::Hold {
                    endpoint: "e",
                    reported: true,
                },
            ),
            (512, 640, Some("e"), Order::GiveUp { endpoint: "e" }),
        ] {
            assert_eq!(
                order(&task("t", endpoint, now, desired)),
                wanted,
                "{now} {desired} {endpoint:?}"
            );
        }
    }

    #[test]
    fn a_task_without_specification_is_no_attachment() {
        let empty = Task::default();
        assert_eq!(
            (attachment(&empty), order(&empty)),
            (None, Order::Report(768, RUNS_NOTHING))
        );
    }

    #[test]
    fn changes_follow_each_other_and_a_gap_is_told() {
        let mut tasks = Tasks::default();
        let all = message(
            COMPLETE,
            "",
            "1",
            &[
                (UPDATE, task("a", Some("e"), 512, 512)),
                (UPDATE, task("b", None, 192, 512)),
            ],
        );
        let changes = tasks.apply(all).unwrap();
        assert_eq!(
            (changes.complete, changes.updated),
            (true, vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(tasks.attachment_of("e").map(|task| task.id.as_str()), Some("a"));

        let next = message(
            INCREMENTAL,
            "1",
            "2",
            &[(
                REMOVE,
                Task {
                    id: "a".to_owned(),
                    ..Task::default()
                },
            )],
        );
        let changes = tasks.apply(next).unwrap();
        // A removal names only the id; whose it was is known from before.
        assert_eq!((changes.complete, attachment(&changes.removed[0])), (false, Some("e")));
        assert_eq!(tasks.attachment_of("e"), None);

        let skipped = message(INCREMENTAL, "3", "4", &[]);
        assert_eq!(
            tasks.apply(skipped),
            Err(Gap {
                follows: "3".to_owned(),
                last: "2".to_owned()
            })
        );
    }

    #[test]
    fn a_complete_message_removes_what_it_does_not_list() {
        let mut tasks = Tasks::default();
        let first = message(
            COMPLETE,
            "",
            "1",
            &[
                (UPDATE, task("a", Some("e"), 512, 512)),
                (UPDATE, task("b", Some("f"), 512, 512)),
            ],
        );
        tasks.apply(first).unwrap();
        let second = message(COMPLETE, "", "1", &[(UPDATE, task("b", Some("f"), 512, 512))]);
        assert_eq!(ids(&tasks.apply(second).unwrap().removed), ["a"]);
        assert_eq!(tasks.iter().count(), 1);
    }

    #[test]
    fn what_is_no_task_is_skipped() {
        let secret = AssignmentsMessage {
            changes: vec![
                AssignmentChange {
                    assignment: Some(Assignment { task: None }),
                    action: UPDATE,
                },
                AssignmentChange::default(),
            ],
            ..AssignmentsMessage::default()
        };
        let mut tasks = Tasks::default();
        assert_eq!(tasks.apply(secret).unwrap().updated, Vec::<String>::new());
    }
}
