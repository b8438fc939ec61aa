//! Stands for `src/io/linux/mod.rs`.

pub(crate) mod disk;
pub(crate) mod point;
#[path = "../../../../src/io/linux/request.rs"]
pub(crate) mod request;

/// Stands for `src/io/linux/resize.rs`.
pub(crate) mod resize {
    pub(crate) struct Room;
}

/// Stands for `src/io/linux/transfer.rs`.
pub(crate) mod transfer {
    pub(crate) const PIECE_BYTES: usize = 1 << 20;
}

/// Stands for `src/io/linux/task_server.rs`.
pub(crate) mod task_server {
    pub(crate) use crate::io::task_runner::TaskRunnerHandle;
}
