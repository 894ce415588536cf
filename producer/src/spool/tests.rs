//! The spool on a real folder.

use super::*;

fn record(sequence: u64) -> Outgoing {
    Outgoing {
        sequence,
        topic: "metrics/docker/p/cpu".to_owned(),
        key: "p".to_owned(),
        payload: format!("{{\"ts\":{sequence}}}").into_bytes(),
    }
}

fn open(folder: &tempfile::TempDir) -> Spool {
    Spool::open(folder.path(), SPOOL_BYTES_MIN).expect("opened")
}

fn append(spool: &mut Spool, sequences: impl IntoIterator<Item = u64>) -> u64 {
    for n in sequences {
        spool.append(&record(n)).expect("written");
    }
    spool.take_evicted().iter().map(|evicted| evicted.unloaded).sum()
}

fn load_all(spool: &mut Spool) -> Vec<u64> {
    let mut sequences = Vec::new();
    loop {
        let records = spool.load_next();
        if records.is_empty() {
            return sequences;
        }
        sequences.extend(records.iter().map(|record| record.sequence));
    }
}

fn files(folder: &tempfile::TempDir) -> usize {
    fs::read_dir(folder.path())
        .expect("listed")
        .filter(|entry| {
            let path = entry.as_ref().expect("an entry").path();
            path.extension().is_some_and(|extension| extension == EXTENSION)
        })
        .count()
}

#[test]
fn a_restart_finds_what_was_not_answered_for_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    append(&mut open(&folder), 1..=3);
    append(&mut open(&folder), 10..=12);
    let mut spool = open(&folder);
    assert_eq!(spool.unloaded(), 6);
    assert_eq!(spool.last_sequence(), Some(12));
    assert_eq!(load_all(&mut spool), [1, 2, 3, 10, 11, 12]);
}

#[test]
fn a_segment_goes_when_all_of_it_is_answered_for_and_not_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = open(&folder);
    append(&mut spool, 1..=3);
    assert_eq!(load_all(&mut spool), [1, 2, 3]);
    append(&mut spool, [4]);
    spool.done(1);
    spool.done(3);
    assert_eq!(files(&folder), 2);
    spool.done(2);
    assert_eq!(files(&folder), 1, "4 was written behind what was handed out");
    drop(spool);
    assert_eq!(load_all(&mut open(&folder)), [4]);
}

#[test]
fn a_full_spool_loses_its_oldest_and_says_how_many() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = open(&folder);
    let lost = append(&mut spool, 1..=5000);
    assert!(lost > 0);
    assert!(spool.bytes() <= SPOOL_BYTES_MIN, "{}", spool.bytes());
    let kept = load_all(&mut spool);
    assert_eq!(kept, (lost + 1..=5000).collect::<Vec<_>>());
    assert!(kept.len() > 500, "an eviction takes an eighth at most: {}", kept.len());
}

#[test]
fn evicting_what_was_handed_out_says_up_to_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = open(&folder);
    append(&mut spool, 1..=10);
    assert_eq!(spool.load_next().len(), 10);
    for n in 11..=2000 {
        spool.append(&record(n)).expect("written");
    }
    assert_eq!(spool.take_evicted().first(), Some(&Evicted { last: 10, unloaded: 0 }));
}

#[test]
fn the_sequences_of_a_segment_stay_within_half_the_window() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = open(&folder);
    append(&mut spool, [1, SEGMENT_SPAN_MAX, SEGMENT_SPAN_MAX + 1]);
    assert_eq!(files(&folder), 2);
}

#[test]
fn what_was_sent_is_kept_for_a_restart_and_not_handed_out_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = open(&folder);
    append(&mut spool, [20, 21]);
    spool.keep_sent(&[record(7), record(9)]).expect("written");
    append(&mut spool, [22]);
    assert_eq!(load_all(&mut spool), [20, 21, 22]);
    drop(spool);
    let mut spool = open(&folder);
    assert_eq!(load_all(&mut spool), [7, 9, 20, 21, 22]);
    for n in [7, 9, 20, 21, 22] {
        spool.done(n);
    }
    assert_eq!(files(&folder), 0);
}

#[test]
fn one_process_has_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = open(&folder);
    let error = Spool::open(folder.path(), SPOOL_BYTES_MIN).expect_err("taken");
    assert!(matches!(error, SpoolError::Taken(_)), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let error = Spool::open(&file.join("spool"), SPOOL_BYTES_MIN).expect_err("no folder");
    assert!(matches!(&error, SpoolError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("file/spool"), "{error}");
}

#[test]
fn a_torn_tail_is_passed_over_and_a_file_of_nothing_else_is_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    append(&mut open(&folder), 1..=3);
    let path = folder.path().join(format!("{:020}.{EXTENSION}", 1));
    let bytes = fs::read(&path).expect("read");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut");
    fs::write(folder.path().join("00000000000000000009.spool"), "nonsense").expect("written");
    let mut spool = open(&folder);
    assert_eq!(load_all(&mut spool), [1, 2]);
    assert!(folder.path().join("00000000000000000009.damaged").exists());
}
