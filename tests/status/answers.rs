//! What is answered: the figures and the configuration, whatever the names, in bounded lines.

use std::collections::BTreeSet;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCachePolicy, CacheError, FetchPolicy, L1Admission, NamespaceQuota};

use super::{alone, ask, ask_on, builder, close, connect, folder, number, open};

/// Whether a figure changes by calls alone. The log writes its superblock when it has time.
fn is_still(name: &str) -> bool {
    !["l2_writes", "l2_write_bytes", "l2_syncs"].contains(&name)
}

#[test]
fn figures_are_those_of_the_cache() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    block_on(async {
        cache.put("pages", "above", "value").await.unwrap();
        let put = tamis::BlobCachePut::new(vec![7; 5000]).with_policy(below);
        cache.put("pages", "below", put).await.unwrap();
        cache.sync().await.unwrap();
        for key in ["above", "below", "none"] {
            cache.get("pages", key).await;
        }
    });
    let (before, answer) = (cache.stats(), ask(folder.path(), "stats"));
    assert!(answer.starts_with(r#"{"stats":{"version":""#), "{answer}");
    assert!(answer.contains(r#""state":"healthy","reason":null,"engine":""#), "{answer}");
    assert_eq!(number(&answer, "pid"), f64::from(std::process::id()));
    assert!((0.0..600.0).contains(&number(&answer, "uptime_seconds")));
    for figure in before.figures() {
        let told = number(&answer, &figure.export_name());
        // It has the memory of its clients besides.
        if is_still(figure.name()) && figure.name() != "memory_buffers_bytes" {
            assert_eq!(told, figure.value(), "{}", figure.name());
        }
    }
    let (_, gets) = answer.split_once(r#""l2_get":{"#).unwrap();
    assert_eq!(number(gets, "count"), 1.0);
    let (_, buckets) = gets.split_once(r#""buckets":[["#).unwrap();
    let (bound, count) = buckets.split_once(']').unwrap().0.split_once(',').unwrap();
    let longest = before.latencies().l2_get().quantile(1.0);
    assert_eq!((bound, count), (longest.as_nanos().to_string().as_str(), "1"));
    let answer = ask(folder.path(), "namespaces");
    assert!(answer.starts_with(r#"{"namespaces":[{"name":"pages","figures":{"#), "{answer}");
    assert!(answer.ends_with(r#"}],"next":null}"#), "{answer}");
    for figure in cache.namespace_stats("pages").unwrap().figures() {
        assert_eq!(number(&answer, &figure.export_name()), figure.value(), "{}", figure.name());
    }
    close(&cache);
}

/// No request changes anything, whatever it is called.
#[test]
fn nothing_can_be_changed() {
    let (_alone, folder) = (alone(), folder());
    let cache = open(folder.path());
    block_on(cache.put("pages", "key", "value")).unwrap();
    block_on(cache.sync()).unwrap();
    let figures = || {
        let all = cache.stats().figures().map(|it| (it.name(), it.value()));
        all.filter(|(name, _)| is_still(name)).collect::<Vec<_>>()
    };
    let (before, config) = (figures(), format!("{:?}", cache.config()));
    let stream = connect(folder.path());
    let verbs = [
        "invalidate_all",
        "invalidate_namespace pages",
        "invalidate_key pages key",
        "close",
        "put",
        "flush",
        "FLUSHALL",
        "set_l1_bytes_max 65536",
        "set_l2_bytes_max 65536",
        "backup /tmp/x",
        "reopen_l2",
        "sync",
        "sweep_expired",
        "touch pages key",
        "get pages key",
        "",
        "stats now",
        "STATS",
        "config l1_bytes_max 1",
        "namespaces -1",
        "namespaces x",
        "namespaces 0 1",
        "namespaces 99999999999999999999999",
        r#"{"verb":"stats"}"#,
        "stats\0",
        "\u{1f600}",
    ];
    for verb in verbs {
        let answer = ask_on(&stream, verb);
        assert!(answer.starts_with(r#"{"error":{"kind":"unknown_request","#), "{verb}: {answer}");
        for known in ["stats", "namespaces", "config"] {
            assert!(answer.contains(known), "{answer}");
        }
    }
    for verb in ["stats", "config", "namespaces", "namespaces 7", "namespaces 18446744073709551615"]
    {
        assert!(!ask_on(&stream, verb).contains("error\":{"), "{verb}");
    }
    drop(stream);
    while cache.stats().memory_buffers_bytes() as f64
        > before.iter().find(|(name, _)| *name == "memory_buffers_bytes").unwrap().1
    {
        std::thread::yield_now();
    }
    assert_eq!(figures(), before);
    assert_eq!(format!("{:?}", cache.config()), config);
    assert_eq!(block_on(cache.get("pages", "key")).unwrap().value(), b"value");
    close(&cache);
}

/// The names of the fields of a struct that is shown by `Debug`.
fn fields(shown: &str) -> BTreeSet<String> {
    let (_, inside) = shown.split_once(" { ").unwrap();
    let (mut depth, mut names, mut word) = (0_i32, BTreeSet::new(), String::new());
    for letter in inside.chars() {
        depth += i32::from("{[(".contains(letter)) - i32::from("}])".contains(letter));
        match letter {
            ':' if depth == 0 => _ = names.insert(std::mem::take(&mut word)),
            letter if letter.is_ascii_alphanumeric() || letter == '_' => word.push(letter),
            _ => word.clear(),
        }
    }
    names
}

#[test]
fn the_configuration_is_told_whole() {
    let (_alone, folder) = (alone(), folder());
    let fetches = FetchPolicy::default().hard_timeout(std::time::Duration::from_millis(1500));
    let builder = builder(folder.path())
        .l2_status_socket(true)
        .l2_write_rate_max(tamis::WriteRate::new(1000))
        .fetch_policy(fetches)
        .quota("q", NamespaceQuota::default());
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let answer = ask(folder.path(), "config");
    let mut names = fields(&format!("{:?}", cache.config()));
    assert!(names.len() > 30, "{names:?}");
    // Not a setting that could be told.
    assert!(names.remove("clock"));
    for name in names {
        assert!(answer.contains(&format!("\"{name}\":")), "{name} is not in {answer}");
    }
    assert_eq!(number(&answer, "l1_bytes_max"), f64::from(4 << 20));
    assert_eq!(number(&answer, "hard_timeout_seconds"), 1.5);
    assert_eq!((number(&answer, "quotas"), number(&answer, "namespaces")), (1.0, 0.0));
    assert_eq!(number(&answer, "bytes_per_second"), 1000.0);
    assert!(answer.contains(r#""l2_required":true,"l2_status_socket":true,"#), "{answer}");
    close(&cache);
}

#[test]
fn any_name_is_told_on_one_line() {
    let (_alone, folder) = (alone(), folder());
    let quota = NamespaceQuota { l1_bytes_max: Some(1 << 20), l2_bytes_max: None };
    let names = ["a\"b", "line\nbreak", "back\\slash", "", "\u{2028}é\u{7f}", "\r\0\t"];
    let builder = builder(folder.path()).l2_status_socket(true).quota(names[0], quota);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let longest = "\u{1}".repeat(255);
    for name in names.iter().chain([&longest.as_str()]) {
        block_on(cache.put(name, "key", "value")).unwrap();
    }
    let answer = ask(folder.path(), "namespaces");
    for told in [
        r#""a\"b""#,
        r#""line\u000abreak""#,
        r#""back\\slash""#,
        r#""""#,
        r#""\u2028é\u007f""#,
        r#""\u000d\u0000\u0009""#,
        &format!("\"{}\"", "\\u0001".repeat(255)),
    ] {
        assert!(answer.contains(&format!(r#"{{"name":{told},"#)), "{told} is not in {answer}");
    }
    assert!(answer.contains(r#""quota":{"l1_bytes_max":1048576,"l2_bytes_max":null}"#), "{answer}");
    assert!(!answer.contains(['\u{1}', '\n', '\r', '\0']));
    close(&cache);
}

/// Ten thousand namespaces of the longest names come in bounded answers, each once.
#[test]
fn many_namespaces_come_in_steps() {
    let (_alone, folder) = (alone(), folder());
    let builder = builder(folder.path()).l2_status_socket(true).max_namespaces(10_000);
    let config = builder.l1_bytes_max(64 << 20).l2_index_bytes_max(64 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let name = |number: usize| format!("{number:05}{}", "\u{7f}".repeat(250));
    block_on(async {
        for number in 0..10_000 {
            cache.put(&name(number), "key", "value").await.unwrap();
        }
    });
    let stream = connect(folder.path());
    let (mut found, mut next, mut answers) = (BTreeSet::new(), Some(0), 0);
    while let Some(from) = next {
        // Its length is looked at.
        let answer = ask_on(&stream, &format!("namespaces {from}"));
        for part in answer.split(r#"{"name":""#).skip(1) {
            assert!(found.insert(part[..5].to_owned()), "{}", &part[..5]);
        }
        let (_, rest) = answer.rsplit_once(r#""next":"#).unwrap();
        next = rest.trim_end_matches('}').parse().ok();
        answers += 1;
    }
    assert_eq!((found.len(), answers), (10_000, 10_000_usize.div_ceil(32)));
    // Some have gone: their slots are left out.
    for number in 0..9_990 {
        block_on(cache.invalidate_namespace(&name(number))).unwrap();
    }
    assert_eq!(ask_on(&stream, "namespaces"), r#"{"namespaces":[],"next":32}"#);
    let last = ask_on(&stream, "namespaces 9984");
    assert_eq!(last.matches(r#"{"name":""#).count(), 10, "{last}");
    close(&cache);
}

#[test]
fn a_socket_without_a_directory_is_refused() {
    let refused = tamis::BlobCacheConfig::builder().l2_status_socket(true).build().unwrap_err();
    let CacheError::InvalidConfig { field, reason } = refused else { panic!("{refused}") };
    assert_eq!(field, "l2_status_socket");
    assert!(reason.contains("set l2_path"), "{reason}");
}
