//! Real processes that are killed, stopped, late, or not those they should be.

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "../examples/world_member.rs"]
mod world_member;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::Job;
use process::{Ended, Process, become_member};
use rustix::process::Signal;

#[test]
fn member_process() {
    become_member();
}

/// All but `who` ended with exit code 1 and this line.
fn assert_named(ended: &[Ended], who: usize, line: &str) {
    for (rank, one) in ended.iter().enumerate() {
        if rank != who {
            assert_eq!(one.code, Some(1), "rank {rank}: {one:?}");
            assert_eq!(one.err.trim(), line, "rank {rank}");
        }
    }
}

const MANY: &str = "--steps=100000 --pause=0.002 --len=20000";

#[test]
fn one_that_is_killed_is_named_by_all() {
    for who in 0..3 {
        let ended = Job::new(3).run(&format!("{MANY} --at={who}:5:kill"));
        assert_eq!(ended[who].code, None);
        assert_named(
            &ended,
            who,
            &format!("rank {who} on host-{who}: its process ended without a word"),
        );
    }
}

#[test]
fn one_that_ends_with_an_error_is_named_with_it() {
    let ended = Job::new(4).run(&format!("{MANY} --at=3:3:error"));
    assert_named(&ended, 3, "rank 3 on host-3: the disk is full");
    assert_eq!(
        (ended[3].code, ended[3].err.trim()),
        (Some(1), "the disk is full")
    );
    let ended = Job::new(2).run(&format!("{MANY} --at=0:3:input"));
    assert_named(&ended, 0, "rank 0 on host-0: the flag is wrong");
    assert_eq!(ended[0].code, Some(2));
    let ended = Job::new(3).run(&format!("{MANY} --at=1:3:exit"));
    assert_named(
        &ended,
        1,
        "rank 1 on host-1: its process ended without a word",
    );
}

#[test]
fn one_that_stands_still_is_named_by_all() {
    for who in [0, 2] {
        let job = Job::new(3);
        let args = format!("{MANY} --silence=1.5 --at={who}:5:stop");
        let mut processes: Vec<_> = (0..3).map(|rank| job.start(rank, &args)).collect();
        let stopped = processes.remove(who);
        let ended: Vec<_> = processes.into_iter().map(Process::end).collect();
        let line = format!(
            "rank {who} on host-{who}: nothing was heard of it for 1.5 s (stopped, or cut off)"
        );
        assert_named(&ended, usize::MAX, &line);
        // When it goes on it learns that it was itself.
        stopped.signal(Signal::CONT);
        let stopped = stopped.end();
        assert_eq!((stopped.code, stopped.err.trim()), (Some(1), &line[..]));
    }
}

#[test]
fn one_that_does_not_call_is_named_by_all() {
    for who in [0, 1] {
        let job = Job::new(3);
        let args = format!("{MANY} --collective=1 --at={who}:5:hang");
        let mut processes: Vec<_> = (0..3).map(|rank| job.start(rank, &args)).collect();
        let hangs = processes.remove(who);
        let ended: Vec<_> = processes.into_iter().map(Process::end).collect();
        hangs.signal(Signal::KILL);
        hangs.end();
        for one in &ended {
            assert_eq!(one.code, Some(1));
            assert_eq!(one.err, ended[0].err);
        }
        let begin = format!(
            "rank {who} on host-{who}: it has not called `all_reduce` of 20000 numbers within 1 s, for which rank "
        );
        assert!(ended[0].err.starts_with(&begin), "{}", ended[0].err);
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_by_all() {
    let job = Job::new(4);
    let args = "--rendezvous=1.5";
    let processes = [0, 1].map(|rank| job.start(rank, args));
    let ended = processes.map(Process::end);
    let line = format!(
        "ranks 2 and 3 of 4 did not come within 1.5 s (rank 0 waits on host-0 port {}; came: 1 on host-1)",
        job.port()
    );
    assert_named(&ended, usize::MAX, &line);

    let ended = Job::new(2).start(1, args).end();
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .err
            .starts_with("rank 0 of 2 did not come within 1.5 s (rank 1 on host-1 looks for it")
    );
}

#[test]
fn one_that_is_killed_at_the_rendezvous_is_named() {
    let job = Job::new(3);
    let [first, second] = [0, 1].map(|rank| job.start(rank, ""));
    // The test's two threads, the one that watches, and the one that listens to rank 0 once that has taken it in.
    let tasks = format!("/proc/{}/task", second.id());
    while std::fs::read_dir(&tasks).unwrap().count() < 4 {
        thread::sleep(Duration::from_millis(10));
    }
    second.signal(Signal::KILL);
    second.end();
    // One that comes a little later is told as well.
    let third = job.start(2, "");
    let line = "rank 1 on host-1: its process ended without a word";
    assert_named(&[first.end(), third.end()], usize::MAX, line);
}

#[test]
fn processes_that_do_not_fit_are_refused_by_name() {
    let refused = |change: &[(&'static str, &str)], rank: usize, words: &[&str]| {
        let job = Job::new(3);
        let processes = [
            job.start(0, ""),
            job.start(1, ""),
            job.start_with(rank, "", change),
        ];
        for one in processes.map(Process::end) {
            // The first rank 0 that is asked twice may not be the one that asks.
            assert_eq!(one.code, Some(2), "{one:?}");
            assert!(
                words.iter().all(|word| one.err.contains(word)),
                "{}",
                one.err
            );
        }
    };
    refused(
        &[("NEXTSCALE_HOST", "host-x")],
        1,
        &["rank 1 came twice", "host-1", "host-x"],
    );
    refused(
        &[("NEXTSCALE_HOST", "host-x")],
        0,
        &["rank 0 came twice", "host-0", "host-x"],
    );
    refused(
        &[
            ("NEXTSCALE_WORLD_SIZE", "4"),
            ("NEXTSCALE_LOCAL_WORLD_SIZE", "4"),
        ],
        2,
        &[
            "rank 2 on host-2 was started as one of 4",
            "rank 0 on host-0 as one of 3",
        ],
    );
}

#[test]
fn another_secret_does_not_come_in() {
    let job = Job::new(3);
    let secret = |words| [("NEXTSCALE_SECRET", words)];
    let args = "--rendezvous=2";
    let processes = [
        job.start_with(0, args, &secret("correct horse")),
        job.start_with(1, args, &secret("correct horse")),
        job.start_with(2, args, &secret("another horse")),
    ];
    let [first, second, third] = processes.map(Process::end);
    assert_eq!(first.err, second.err);
    let words = [
        "rank 2 of 3 did not come",
        "turned away",
        "(rank 2 by its word) has another NEXTSCALE_SECRET",
    ];
    assert!(
        words.iter().all(|word| first.err.contains(word)),
        "{}",
        first.err
    );
    let words = ["rank 0 of 3 did not come", "has another NEXTSCALE_SECRET"];
    assert!(
        words.iter().all(|word| third.err.contains(word)),
        "{}",
        third.err
    );
    assert_eq!([first.code, second.code, third.code], [Some(1); 3]);

    // With the right one all do.
    let job = Job::new(2);
    let processes = [0, 1].map(|rank| job.start_with(rank, "", &secret("correct horse")));
    for one in processes.map(Process::end) {
        assert_eq!(one.code, Some(0), "{one:?}");
    }
}

#[test]
fn strangers_change_nothing() {
    let job = Job::new(3);
    let first = job.start(0, "--silence=5");
    // Silent ones, babblers, and one that speaks like a browser, while the others are not there yet.
    let mut strangers = Vec::new();
    for _ in 0..200 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", job.port())) {
            strangers.push(stream);
            if strangers.len() == 12 {
                break;
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(strangers.len(), 12);
    for stranger in &mut strangers[..4] {
        let _ = stranger.write_all(&[0xff; 70_000]);
    }
    let _ = strangers[4].write_all(b"GET / HTTP/1.1\r\n\r\n");
    // The right first words, then nothing right.
    let _ = strangers[5].write_all(b"nxsworld\x01\0\x01\0");
    let others = [1, 2].map(|rank| job.start(rank, "--silence=5"));
    for one in others.map(Process::end).into_iter().chain([first.end()]) {
        assert_eq!(one.code, Some(0), "{one:?}");
    }
    let mut left = Vec::new();
    assert!(strangers[0].read_to_end(&mut left).is_err() || left.is_empty());
}

#[test]
fn a_port_of_another_program_is_passed_over() {
    let job = Job::new(2);
    let taken = TcpListener::bind(("127.0.0.1", job.port())).unwrap();
    // It even answers.
    thread::spawn(move || {
        for stream in taken.incoming().flatten() {
            let _ = (&stream).write_all(&[b'x'; 4096]);
        }
    });
    for one in job.run("") {
        assert_eq!(one.code, Some(0), "{one:?}");
    }
}

#[test]
fn what_is_left_of_an_earlier_start_is_passed_over() {
    let job = Job::new(2);
    // Rank 0 of the first start still waits, on the job's first port.
    let stale = job.start(0, "--rendezvous=20");
    while TcpStream::connect(("127.0.0.1", job.port())).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    let again = [("NEXTSCALE_RESTART", "1")];
    let processes = [1, 0].map(|rank| job.start_with(rank, "", &again));
    for one in processes.map(Process::end) {
        assert_eq!(one.code, Some(0), "{one:?}");
        assert!(one.out.contains("started again"));
    }
    stale.signal(Signal::KILL);
    stale.end();
}
