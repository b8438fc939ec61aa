//! The progress of a command that takes a while.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str =
    "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed} so far, {eta} left";

const STEPS_BAR: &str = "{bar:30} {pos} of {len}, {elapsed} so far: {msg}";

const REQUESTS_BAR: &str = "{bar:30} {percent} %, {per_sec}, {elapsed} so far, {eta} left";

/// Of bytes, on the standard error, if somebody can watch it.
pub(super) fn bar() -> ProgressBar {
    styled(None, BAR)
}

/// Of so many requests.
pub(super) fn request_bar(requests: u64) -> ProgressBar {
    styled(Some(requests), REQUESTS_BAR)
}

/// Of measurements, whose names are shown.
pub(super) fn step_bar(steps: u64) -> ProgressBar {
    styled(Some(steps), STEPS_BAR)
}

fn styled(length: Option<u64>, style: &str) -> ProgressBar {
    let is_watched = io::stderr().is_terminal();
    let target =
        if is_watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(length, target);
    ProgressStyle::with_template(style).into_iter().for_each(|style| bar.set_style(style));
    bar
}
