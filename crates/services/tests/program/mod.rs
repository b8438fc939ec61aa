//! A program of this package, started for a test.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A program, which ends with the test.
pub(crate) struct Program {
    child: Child,
    /// Where it listens, as it says itself.
    pub(crate) address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Program {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["--port", "0"]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdout, mut line) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        stdout.read_line(&mut line).unwrap();
        Self { child, address: line.trim().to_owned(), _stdout: stdout }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// As by ctrl-c, which is `-INT`, or by a supervisor: it ends by itself, and well.
    pub(crate) fn stop(mut self, signal: &str) {
        self.signal(signal);
        for _ in 0..600 {
            if let Some(ended) = self.child.try_wait().unwrap() {
                assert!(ended.success(), "{ended}");
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("it does not end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
