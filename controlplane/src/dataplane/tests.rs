//! What can be said without a kernel's help.

use super::*;

#[test]
fn every_map_is_named_once() {
    let mut names = maps::NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), maps::NAMES.len());
}

#[test]
fn the_context_names_the_interface_only() {
    let context = test_run_context(0x0102_0304);
    assert_eq!(context[36..40], 0x0102_0304_u32.to_ne_bytes());
    assert_eq!(context[40..44], 0x0102_0304_u32.to_ne_bytes());
    assert!(context[..36].iter().chain(&context[44..]).all(|byte| *byte == 0));
}

#[test]
fn a_task_may_own_it_and_move_between_threads() {
    fn movable<T: Send + 'static>() {}
    movable::<Dataplane>();
    movable::<ProgramLog>();
}
