//! Several processes that train one model: the same numbers as one, whoever is lost, and what is refused.

mod common;

use common::{bitmap, nextscale, refused, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Images in two classes, 26 for training and 3 for validation.
fn images(dir: &Path) -> String {
    for (split, count) in [("train", 26), ("val", 3)] {
        for i in 0..count {
            let class = dir.join(split).join(format!("class{}", i % 2));
            std::fs::create_dir_all(&class).unwrap();
            std::fs::write(class.join(format!("{i:02}.bmp")), bitmap(32, i + count)).unwrap();
        }
    }
    format!("--data_path={}", dir.display())
}

/// A run of the transformer whose dropout of classes and of branches is at work.
struct Case {
    _dir: tempfile::TempDir,
    root: PathBuf,
    flags: Vec<String>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        let data = images(&root.join("images"));
        let out = root.join("tokenizer");
        let made = format!(
            "train-tokenizer {data} --out={} --pn=1_2 --ch=32 --vocab=32 --bs=4 --steps=2 --seed=3 --quiet",
            out.display()
        );
        succeed(&made.split_whitespace().collect::<Vec<_>>());
        let flags = [
            data,
            format!("--tokenizer={}", out.join("tokenizer.safetensors").display()),
            "--pn=1_2 --patch_size=16 --depth=2 --bs=12 --ac=2 --ep=8 --wp=1 --tblr=0.01 --eval_every=6 --save_every=3".into(),
            "--mid_reso=1.1 --hflip=1 --seed=7 --log_every=1 --workers=1 --threads=1 --quiet".into(),
        ];
        let flags = flags.iter().flat_map(|f| f.split(' ').map(str::to_owned));
        Self {
            flags: flags.collect(),
            root,
            _dir: dir,
        }
    }

    fn args(&self, out: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["train".to_owned()];
        args.extend(self.flags.iter().cloned());
        args.push(format!("--out={}", self.root.join(out).display()));
        args.extend(more.iter().map(|s| (*s).to_owned()));
        args
    }

    fn train(&self, out: &str, more: &[&str]) -> Ended {
        let args = self.args(out, more);
        succeed(&args.iter().map(String::as_str).collect::<Vec<_>>());
        self.ended(out)
    }

    fn start(&self, out: &str, more: &[&str]) -> Child {
        let args = self.args(out, more);
        let mut command = nextscale(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().expect("the program starts")
    }

    fn ended(&self, out: &str) -> Ended {
        let out = self.root.join(out);
        let steps = std::fs::read_to_string(out.join("steps.jsonl")).unwrap();
        Ended {
            losses: steps.lines().map(|l| number(l, "loss")).collect(),
            norms: steps.lines().map(|l| number(l, "grad_norm")).collect(),
            checkpoint: std::fs::read(out.join("ar-ckpt-last.safetensors")).unwrap(),
        }
    }
}

fn number(line: &str, name: &str) -> f64 {
    let line: Value = serde_json::from_str(line).unwrap();
    line[name].as_f64().unwrap()
}

/// What a run leaves.
struct Ended {
    losses: Vec<f64>,
    norms: Vec<f64>,
    checkpoint: Vec<u8>,
}

impl Ended {
    /// Within rounding: the first step as float32 has it, the last after twenty updates.
    fn is_close_to(&self, other: &Self) {
        assert_eq!(self.losses.len(), other.losses.len());
        for (a, b) in [(&self.losses, &other.losses), (&self.norms, &other.norms)] {
            let off: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).collect();
            assert!(off[0] <= 1e-6, "first step: {:e}", off[0]);
            assert!(off.iter().all(|&off| off <= 1e-4), "{off:?}");
        }
    }

    fn is(&self, other: &Self) {
        assert_eq!(self.losses, other.losses);
        assert_eq!(self.norms, other.norms);
        assert!(tensors(&self.checkpoint) == tensors(&other.checkpoint));
    }
}

/// The bytes of all tensors; the header before them holds times.
fn tensors(file: &[u8]) -> &[u8] {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    &file[8 + header as usize..]
}

#[test]
fn two_and_three_processes_train_as_one_does() {
    let case = Case::new();
    let one = case.train("one", &[]);
    assert!(one.losses.len() >= 20);
    let two = case.train("two", &["--procs=2"]);
    two.is_close_to(&one);
    two.is(&case.train("again", &["--procs=2"]));
    case.train("three", &["--procs=3"]).is_close_to(&one);
    // A checkpoint does not know how many wrote it.
    case.train("mixed", &["--procs=2", "--stop_after=5"]);
    case.train("mixed", &["--procs=3", "--stop_after=13"]);
    case.train("mixed", &[]).is_close_to(&one);
}

#[test]
fn a_shared_optimizer_trains_as_a_whole_one() {
    let case = Case::new();
    let one = case.train("one", &["--ema=0.9"]);
    let shared = ["--procs=2", "--zero=1", "--ema=0.9"];
    let two = case.train("two", &shared);
    two.is_close_to(&one);
    two.is(&case.train("again", &shared));
    // Neither does a checkpoint know who had which part of it; the average is in it, too.
    case.train(
        "mixed",
        &["--procs=3", "--zero=1", "--ema=0.9", "--stop_after=5"],
    );
    case.train("mixed", &["--procs=2", "--ema=0.9", "--stop_after=9"]);
    case.train(
        "mixed",
        &["--procs=2", "--zero=1", "--ema=0.9", "--stop_after=13"],
    );
    let mixed = case.train("mixed", &["--ema=0.9"]);
    mixed.is_close_to(&one);
    // But for the digits of losses in its header.
    let sizes = [mixed.checkpoint.len(), one.checkpoint.len()];
    assert!(sizes[0].abs_diff(sizes[1]) < 256, "{sizes:?}");
    // One process has nothing to share.
    case.train("alone", &["--zero=1", "--ema=0.9"]).is(&one);
    let args = case.args("wrong", &["--zero=2"]);
    let text = refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("--zero=2: it must be 0, or 1"), "{text}");
}

/// The validation loss of every evaluation.
fn evaluations(out: &Path) -> Vec<f64> {
    let lines = std::fs::read_to_string(out.join("log.txt")).unwrap();
    let lines = lines
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.filter_map(|l| l["vL_tail"].as_f64()).collect()
}

#[test]
fn a_best_that_can_t_be_written_ends_no_run_of_several() {
    let case = Case::new();
    // The loss goes up and down, and nothing is ever the best that is kept.
    let flags = ["--ac=1", "--eval_every=1", "--tblr=3", "--stop_after=18"];
    for more in [["--procs=2", "--zero=1"], ["--procs=2", "--zero=0"]] {
        let out = more.concat();
        let best = case.root.join(&out).join("ar-ckpt-best.safetensors/taken");
        std::fs::create_dir_all(best).unwrap();
        case.train(&out, &[&flags[..], &more[..]].concat());
        let losses = evaluations(&case.root.join(&out));
        let worse = losses.windows(2).any(|pair| pair[1] > pair[0]);
        assert!(losses.len() >= 5 && worse, "{losses:?}");
    }
}

#[test]
fn gradients_between_two_updates_are_saved_whole() {
    let case = Case::new();
    // Three iterations an epoch, of which two make a step: every other epoch ends between two.
    let odd = ["--bs=24", "--eval_every=1", "--save_every=0", "--keep=40"];
    let flags = |more: &[&'static str]| [&odd[..], more].concat();
    let one = case.train("one", &flags(&[]));
    for more in [["--procs=3", "--zero=0"], ["--procs=2", "--zero=1"]] {
        let out = more.concat();
        let whole = case.train(&out, &flags(&more));
        whole.is_close_to(&one);
        // From a checkpoint that it wrote between two updates the run goes on to the same end.
        let mut between = 0;
        for n in 1..40 {
            let kept = format!("ar-ckpt-last.{n}.safetensors");
            let from = case.root.join(&out).join(kept);
            if between == 2 || !from.exists() {
                break;
            }
            let bytes = std::fs::read(&from).unwrap();
            let header = &bytes[..bytes.len() - tensors(&bytes).len()];
            if !String::from_utf8_lossy(header).contains("var_opt.pending") {
                continue;
            }
            between += 1;
            let folder = case.root.join(format!("{out}{n}"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("ar-ckpt-last.safetensors"), bytes).unwrap();
            let out = folder.file_name().unwrap().to_str().unwrap();
            let ended = case.train(out, &flags(&more));
            assert!(
                tensors(&ended.checkpoint) == tensors(&whole.checkpoint),
                "{out}"
            );
        }
        assert_eq!(between, 2);
    }
}

#[test]
fn a_tokenizer_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = images(&dir.path().join("images"));
    let train = |name: &str, more: &str| {
        let out = dir.path().join(name);
        let flags = format!(
            "train-tokenizer {data} --out={} --pn=1_2 --ch=32 --vocab=32 --bs=6 --steps=12 --revive=4 --dropout=0.1 --mid_reso=1.1 --seed=3 --log_every=1 --workers=1 --threads=1 --quiet {more}",
            out.display()
        );
        succeed(&flags.split_whitespace().collect::<Vec<_>>());
        let steps = std::fs::read_to_string(out.join("steps.jsonl")).unwrap();
        let all = |name| steps.lines().map(|l| number(l, name)).collect::<Vec<_>>();
        [all("loss"), all("usage"), all("grad_norm")]
    };
    let one = train("one", "");
    for processes in ["--procs=2", "--procs=3"] {
        let several = train(processes, processes);
        for (a, b) in one.iter().flatten().zip(several.iter().flatten()) {
            assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} and {b}");
        }
    }
}

#[test]
fn evaluations_are_shared() {
    let case = Case::new();
    case.train("model", &["--stop_after=2"]);
    let model = case.root.join("model/ar-ckpt-last.safetensors");
    let tokenizer = case.root.join("tokenizer/tokenizer.safetensors");
    let picture = case.root.join("picture.png");
    let commands = [
        format!("eval --model={} {}", model.display(), case.flags[0]),
        format!(
            "reconstruct --tokenizer={} {} --force --out={}",
            tokenizer.display(),
            case.flags[0],
            picture.display()
        ),
    ];
    for command in commands {
        let run = |more: &str| {
            let line = format!("{command} --batch=2 --threads=1 {more}");
            succeed(&line.split_whitespace().collect::<Vec<_>>())
        };
        let one = run("");
        assert!(one.lines().count() > 3, "{one}");
        // More processes than validation images, too.
        for more in ["--procs=2", "--procs=4"] {
            assert_eq!(run(more), one);
        }
    }
    assert!(picture.exists());
}

/// The processes that another has started.
fn children(of: &Child) -> Vec<String> {
    let listed = Command::new("ps")
        .args(["-o", "pid=", "--ppid", &of.id().to_string()])
        .output();
    let text = String::from_utf8(listed.expect("ps lists processes").stdout).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

fn signal(name: &str, process: &str) {
    let sent = Command::new("kill").args([name, process]).status();
    assert!(sent.expect("kill is there").success());
}

/// Waits until a run has made so many steps.
fn steps(case: &Case, out: &str, count: usize) {
    let file = case.root.join(out).join("steps.jsonl");
    let begun = Instant::now();
    while std::fs::read_to_string(&file).map_or(0, |s| s.lines().count()) < count {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "no {count} steps"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(ended: &Output) -> String {
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn a_lost_process_is_named_and_the_run_goes_on_bit_for_bit() {
    let case = Case::new();
    let whole = case.train("whole", &["--procs=3"]);
    let shared = case.train("shared", &["--procs=3", "--zero=1"]);
    for (member, zero) in [(0, 0), (1, 1), (2, 0)] {
        let out = format!("lost{member}");
        let zero = format!("--zero={zero}");
        let run = case.start(&out, &["--procs=3", "--max_restarts=1", &zero]);
        steps(&case, &out, 4 + 3 * member);
        signal("-KILL", &children(&run)[member]);
        let ended = run.wait_with_output().unwrap();
        let text = said(&ended);
        assert!(ended.status.success(), "{text}");
        assert!(
            text.contains(&format!("rank {member} ended by signal 9")),
            "{text}"
        );
        assert!(text.contains(&format!("rank {member} on ")), "{text}");
        let uninterrupted = if zero == "--zero=1" { &shared } else { &whole };
        case.ended(&out).is(uninterrupted);
    }
}

#[test]
fn a_signal_to_the_launcher_stops_all_after_a_whole_step() {
    let case = Case::new();
    let whole = case.train("whole", &["--procs=2"]);
    let run = case.start("stopped", &["--procs=2"]);
    steps(&case, "stopped", 3);
    signal("-TERM", &run.id().to_string());
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143), "{}", said(&ended));
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(text.starts_with("stopped by SIGTERM after step"), "{text}");
    case.train("stopped", &["--procs=2"]).is(&whole);
    // One process that is asked to stop takes the other with it.
    let run = case.start("one", &["--procs=2"]);
    steps(&case, "one", 3);
    signal("-INT", &children(&run)[1]);
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", said(&ended));
    case.train("one", &["--procs=2"]).is(&whole);
}

#[test]
fn processes_that_were_given_other_things_are_refused() {
    let case = Case::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let master = format!("--master=127.0.0.1:{}", port.local_addr().unwrap().port());
    drop(port);
    let hosts = "--hosts=127.0.0.1";
    let (first, second) = (
        ["--rank=0", "--world_size=2"],
        ["--rank=1", "--world_size=2"],
    );
    let two = |a: &[&str], b: &[&str]| {
        let of = |rank: &[&str], more: &[&str]| {
            let all = [rank, &[master.as_str(), hosts], more].concat();
            case.start("refused", &all)
        };
        let (a, b) = (of(&first, a), of(&second, b));
        [a, b].map(|c| c.wait_with_output().unwrap())
    };
    for (a, b, found) in [
        ("--bs=12", "--bs=24", "rank 1 on "),
        ("--tblr=0.01", "--tblr=0.02", "has --tblr 0.02, rank 0 on "),
    ] {
        for ended in two(&[a], &[b]) {
            let text = said(&ended);
            assert_eq!(ended.status.code(), Some(2), "{text}");
            assert!(text.contains(found) && text.lines().count() == 1, "{text}");
            assert!(
                text.contains("all processes of a run need the same"),
                "{text}"
            );
        }
    }
    // Nothing was written.
    assert!(!case.root.join("refused").exists());
    let uneven = case.args("uneven", &["--procs=5"]);
    let ended = nextscale(&uneven.iter().map(String::as_str).collect::<Vec<_>>())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let text = said(&ended);
    assert!(
        text.contains(
            "--bs=12: can't be shared by 5 processes in --ac=2 iterations; give 10 or 20"
        ) || text.contains("--bs=12: can't be shared by 5 processes in --ac=2 iterations; give 20"),
        "{text}"
    );
    let text = refused(&["train", "--rank=0"]);
    assert!(text.contains("--world_size"), "{text}");
}

#[test]
fn variables_of_a_launcher_that_contradict_are_refused() {
    let case = Case::new();
    let args = case.args("variables", &[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for (variables, found) in [
        (&[("WORLD_SIZE", "2")][..], "WORLD_SIZE"),
        (&[("WORLD_SIZE", "2"), ("RANK", "2")], "RANK"),
        (&[("WORLD_SIZE", "x"), ("RANK", "0")], "WORLD_SIZE"),
    ] {
        let ended = nextscale(&args)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = said(&ended);
        assert_eq!(ended.status.code(), Some(2), "{text}");
        assert!(text.contains(found) && text.lines().count() == 1, "{text}");
    }
}
