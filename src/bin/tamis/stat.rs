//! `tamis stat`: watches a running cache.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tamis::{StatusClient, StatusError};

use super::arguments::Stat;
use super::failure::Failure;
use super::output::{shown, size};
use super::rates::{Rates, Sample};

/// How long a cache that is watched may have no socket, while it is closed or opened, or be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lines below a head.
const LINES: u64 = 20;

const HEAD: &str = concat!(
    "  gets/s  l1 %  l2 %   puts/s  evict/s reads/s     read/s  p50 ms  p99 ms",
    "    write/s  wamp         l1         l2 errors drops  state"
);

pub(super) fn run(stat: &Stat, is_json: bool) -> Result<ExitCode, Failure> {
    if stat.namespaces {
        show_namespaces(stat, is_json)?;
    } else if stat.config {
        show_config(stat, is_json)?;
    } else {
        watch(stat, is_json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The object that answers a request.
fn ask(client: &mut StatusClient, request: &str) -> Result<Value, Failure> {
    let line = client.ask(request)?;
    let answer: Value = serde_json::from_str(&line).map_err(|error| Failure::Answer {
        kind: "not_json".to_owned(),
        message: format!("the cache has answered something else than JSON: {error}"),
    })?;
    let text = |member: &str| answer["error"][member].as_str().unwrap_or("unknown").to_owned();
    if answer["error"].is_object() {
        return Err(Failure::Answer { kind: text("kind"), message: text("message") });
    }
    Ok(answer)
}

/// Each on a connection of its own: none is kept from others meanwhile, and the cache ends those
/// that are silent for as long as an interval may be.
fn sample(stat: &Stat, since: Instant) -> Result<Sample, Failure> {
    let mut client = StatusClient::connect(&stat.directory)?;
    let answer = ask(&mut client, "stats")?;
    Ok(Sample::new(&answer["stats"], since.elapsed().as_secs_f64()))
}

/// The same of a cache that has answered before. While its store is closed or opened, which may
/// take a while, it has no socket; and others may have all the connections for a moment.
fn sample_again(stat: &Stat, since: Instant) -> Result<Sample, Failure> {
    let begun = Instant::now();
    loop {
        match sample(stat, since) {
            Err(failure) if is_momentary(&failure) && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(200));
            }
            sampled => return sampled,
        }
    }
}

fn is_momentary(failure: &Failure) -> bool {
    match failure {
        Failure::Status(error) => {
            matches!(error, StatusError::NoSocket { .. } | StatusError::Silent { .. })
        }
        Failure::Answer { kind, .. } => kind == "busy",
        _ => false,
    }
}

/// A cache that has answered before and is not there any more.
fn ended(failure: Failure, pid: Option<u64>) -> Failure {
    match failure {
        Failure::Status(
            error @ (StatusError::NoOwner { .. }
            | StatusError::OwnerDead { .. }
            | StatusError::NoSocket { .. }
            | StatusError::NoStore { .. }),
        ) => Failure::Ended(pid, error),
        other => other,
    }
}

fn watch(stat: &Stat, is_json: bool) -> Result<(), Failure> {
    let lines = if stat.once { Some(1) } else { stat.count };
    let since = Instant::now();
    let mut earlier = sample(stat, since)?;
    let mut due = since;
    let mut line = 0;
    while lines.is_none_or(|lines| line < lines) {
        // One that took long is not made up for.
        due = Instant::now().max(due + stat.interval);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let later = sample_again(stat, since).map_err(|failure| ended(failure, earlier.pid))?;
        if later.follows(&earlier) {
            let rates = later.since(&earlier);
            let mut output = io::stdout().lock();
            if is_json {
                writeln!(output, "{}", later.object(&rates))?;
            } else {
                if line % LINES == 0 {
                    writeln!(output, "{HEAD}")?;
                }
                writeln!(output, "{}", text(&rates))?;
            }
            output.flush()?;
            line += 1;
        } else {
            let process = later
                .pid
                .map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            eprintln!("tamis: the store was opened anew, by {process}");
        }
        earlier = later;
    }
    Ok(())
}

fn text(rates: &Rates) -> String {
    let state = match &rates.reason {
        Some(reason) => format!("{}: {}", rates.state, shown(reason)),
        None => rates.state.clone(),
    };
    format!(
        "{:>8} {:>5} {:>5} {:>8} {:>8} {:>7} {:>10} {:>7} {:>7} {:>10} {:>5} {:>10} \
         {:>10} {:>6} {:>5}  {state}",
        known(rates.gets, number),
        known(rates.l1_hit_pct, |pct| format!("{pct:.1}")),
        known(rates.l2_hit_pct, |pct| format!("{pct:.1}")),
        known(rates.puts, number),
        known(rates.evictions, number),
        known(rates.reads, number),
        known(rates.read_bytes, bytes),
        known(rates.get_p50, millis),
        known(rates.get_p99, millis),
        known(rates.write_bytes, bytes),
        known(rates.amplification, |factor| format!("{factor:.2}")),
        known(rates.l1_bytes, bytes),
        known(rates.l2_bytes, bytes),
        known(rates.errors, |count| format!("{count:.0}")),
        known(rates.drops, |count| format!("{count:.0}")),
    )
}

fn known(figure: Option<f64>, show: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| "-".to_owned(), show)
}

fn number(rate: f64) -> String {
    match rate {
        ..10.0 => format!("{rate:.1}"),
        ..1e7 => format!("{rate:.0}"),
        _ => format!("{:.1}M", rate / 1e6),
    }
}

fn millis(seconds: f64) -> String {
    let millis = seconds * 1000.0;
    if millis < 100.0 { format!("{millis:.2}") } else { format!("{millis:.0}") }
}

// Figures of bytes are whole, and not negative.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn bytes(bytes: f64) -> String {
    size(bytes as u64)
}

fn show_config(stat: &Stat, is_json: bool) -> Result<(), Failure> {
    let mut client = StatusClient::connect(&stat.directory)?;
    let answer = ask(&mut client, "config")?;
    let config = &answer["config"];
    let mut output = io::stdout().lock();
    if is_json {
        writeln!(output, "{config}")?;
        return Ok(());
    }
    for (name, value) in config.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), shown);
        writeln!(output, "{name:<30}  {value}")?;
    }
    Ok(())
}

fn show_namespaces(stat: &Stat, is_json: bool) -> Result<(), Failure> {
    let mut client = StatusClient::connect(&stat.directory)?;
    let (mut next, mut all) = (Some(0), Vec::new());
    while let Some(from) = next {
        let mut answer = ask(&mut client, &format!("namespaces {from}"))?;
        // A number that does not grow would have no end.
        next = answer["next"].as_u64().filter(|next| *next > from);
        if let Value::Array(namespaces) = answer["namespaces"].take() {
            all.extend(namespaces);
        }
    }
    let figure = |it: &Value, name: &str| it["figures"][name].as_f64().unwrap_or_default();
    let in_memory = |it: &Value| figure(it, "tamis_namespace_bytes_in_use");
    let on_disk = |it: &Value| figure(it, "tamis_namespace_l2_bytes_in_use");
    all.sort_by(|one, other| {
        let bytes = |it: &Value| in_memory(it) + on_disk(it);
        bytes(other).total_cmp(&bytes(one))
    });
    let mut output = io::BufWriter::new(io::stdout().lock());
    if is_json {
        for namespace in &all {
            writeln!(output, "{namespace}")?;
        }
    } else {
        writeln!(
            output,
            "{:>12} {:>12} {:>6} {:>10} {:>11} {:>11} {:>11} {:>11}  namespace",
            "hits", "misses", "hit %", "entries", "l1", "l2", "l1 quota", "l2 quota"
        )?;
        for it in &all {
            let (hits, misses) = (
                figure(it, "tamis_namespace_hits_total"),
                figure(it, "tamis_namespace_misses_total"),
            );
            let gets = Some(hits + misses).filter(|gets| *gets > 0.0);
            writeln!(
                output,
                "{hits:>12} {misses:>12} {:>6} {:>10} {:>11} {:>11} {:>11} {:>11}  {}",
                known(gets, |gets| format!("{:.1}", hits / gets * 100.0)),
                figure(it, "tamis_namespace_entries"),
                bytes(in_memory(it)),
                bytes(on_disk(it)),
                known(it["quota"]["l1_bytes_max"].as_f64(), bytes),
                known(it["quota"]["l2_bytes_max"].as_f64(), bytes),
                shown(it["name"].as_str().unwrap_or_default()),
            )?;
        }
    }
    output.flush()?;
    Ok(())
}
