//! A panic in a thread of the broker ends the process; one elsewhere does not.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

const THREAD: &str = "TERN_TEST_PANIC_IN";

/// Not a test of its own: what the other test runs in a process of its own.
#[test]
fn a_panic_in_the_named_thread() {
    let Ok(name) = std::env::var(THREAD) else { return };
    tern_bridge::abort_on_broker_panic();
    let thread = std::thread::Builder::new().name(name).spawn(|| panic!("as asked")).unwrap();
    assert!(thread.join().is_err());
}

#[test]
fn only_a_panic_of_the_broker_ends_the_process() {
    let run = |name: &str| {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new(own);
        command.args(["--exact", "a_panic_in_the_named_thread"]).env(THREAD, name);
        command.output().unwrap().status
    };

    assert_eq!(run("router-0").signal(), Some(6), "SIGABRT");
    assert_eq!(run("tern-broker-v4").signal(), Some(6), "SIGABRT");
    assert!(run("some-other-thread").success());
}
