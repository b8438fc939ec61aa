//! The progress of a command that takes a while.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const BAR: &str =
    "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed} so far, {eta} left";

/// On the standard error, if somebody can watch it.
pub(super) fn bar() -> ProgressBar {
    let is_watched = io::stderr().is_terminal();
    let target =
        if is_watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    ProgressStyle::with_template(BAR).into_iter().for_each(|style| bar.set_style(style));
    bar
}
