use super::*;

fn open(folder: &Path, bound: u64) -> Spool {
    Spool::open(folder.to_owned(), bound).unwrap()
}

fn fill(spool: &mut Spool, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(spool.push("up/r-1/report", format!("report {number}").as_bytes(), 5), Kept::OnDisk);
    }
}

fn rest(spool: &mut Spool) -> Vec<String> {
    std::iter::from_fn(|| spool.next()).map(|m| String::from_utf8(m.payload).unwrap()).collect()
}

fn reports(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("report {number}")).collect()
}

#[test]
fn what_was_not_taken_comes_again_in_order_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    fill(&mut spool, 0..10);
    let first: Vec<Message> = (0..6).map_while(|_| spool.next()).collect();
    first[..4].iter().for_each(|message| spool.taken(message.number));
    spool.save();
    spool.taken(first[4].number);
    fill(&mut spool, 10..12);
    drop(spool);

    let mut spool = open(folder.path(), 1 << 20);

    assert_eq!(rest(&mut spool), reports(4..12));
    assert_eq!(spool.oldest(), Some(5));
}

#[test]
fn receipts_in_any_order_move_the_queue_only_past_what_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    fill(&mut spool, 0..4);
    assert_eq!(rest(&mut spool), reports(0..4));
    [3, 1].into_iter().for_each(|number| spool.taken(number));
    spool.again();
    assert_eq!(spool.len(), 4);

    spool.taken(0);
    assert_eq!(spool.len(), 2);
    spool.again();
    assert_eq!(rest(&mut spool), reports(2..4));
}

#[test]
fn at_the_bound_the_oldest_go_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 4096);
    fill(&mut spool, 0..500);

    assert!(spool.bytes() <= 4096);
    let left = rest(&mut spool);
    assert_eq!(left.last(), Some(&"report 499".to_owned()));
    assert_eq!(left.len() as u64 + spool.dropped(), 500);
    assert_eq!(spool.fault(), Some("the queue is at its bound"));
    let on_disk: u64 =
        fs::read_dir(folder.path()).unwrap().flatten().map(|f| f.metadata().unwrap().len()).sum();
    assert!(on_disk <= 4096 + 64, "{on_disk}");
}

#[test]
fn what_waits_is_kept_once_and_what_was_taken_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    assert_eq!(spool.push("t", b"x", 1), Kept::OnDisk);
    assert_eq!(spool.push("t", b"x", 2), Kept::Already);
    assert_eq!(spool.push("u", b"x", 2), Kept::OnDisk);
    let number = spool.next().unwrap().number;
    spool.taken(number);

    assert_eq!(spool.push("t", b"x", 3), Kept::OnDisk);
}

#[test]
fn a_torn_end_is_cut_and_the_queue_goes_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    fill(&mut spool, 0..3);
    drop(spool);
    let path = folder.path().join(format!("{:016x}.log", 0));
    let whole = fs::read(&path).unwrap();
    for cut in [1, 5, 30] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let mut spool = open(folder.path(), 1 << 20);
        fill(&mut spool, 7..8);
        assert_eq!(rest(&mut spool), ["report 0", "report 1", "report 7"]);
    }
}

#[test]
fn an_empty_queue_leaves_no_segments_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    fill(&mut spool, 0..3);
    while let Some(message) = spool.next() {
        spool.taken(message.number);
    }
    spool.save();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    fill(&mut spool, 3..5);
    assert_eq!(spool.next().map(|message| message.number), Some(3));
    drop(spool);
    let mut spool = open(folder.path(), 1 << 20);
    assert_eq!(rest(&mut spool), reports(3..5));
}

#[test]
fn while_the_disk_takes_nothing_a_bounded_number_waits_in_memory_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut spool = open(folder.path(), 1 << 20);
    fill(&mut spool, 0..2);
    spool.writer = None;
    fs::rename(folder.path().join(format!("{:016x}.log", 0)), folder.path().join("away")).unwrap();

    for number in 2..4 {
        assert_eq!(spool.push("t", format!("report {number}").as_bytes(), 5), Kept::InMemory);
    }
    assert!(spool.fault().is_some());
    fs::rename(folder.path().join("away"), folder.path().join(format!("{:016x}.log", 0))).unwrap();
    assert_eq!(spool.push("t", b"report 4", 5), Kept::InMemory);

    assert_eq!(rest(&mut spool), reports(0..5));
    for number in 0..3000 {
        spool.push("t", format!("{number} {}", "x".repeat(1000)).as_bytes(), 5);
    }
    assert!(spool.memory_bytes <= MEMORY_MAX && spool.dropped() > 1000);
    let left = rest(&mut spool);
    // The three before them too: nobody had taken them.
    assert_eq!(left.len() as u64 + spool.dropped(), 3003);
}
