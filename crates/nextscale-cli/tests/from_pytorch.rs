//! `docs/from-pytorch.md`: every command line on it is run, in the order of the page, in a folder where the files that it names are
//! small ones; what would take too long is made small by flags behind those of the page, the last of which count.

mod common;

use common::{bitmap, nextscale, succeed};
use nextscale::options::{Recipe, TransformerArgs, TransformerOptions};
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../../docs/from-pytorch.md");
/// What the page calls the folder of images.
const DATA: &str = "/path/to/imagenet";
/// Classes of the published models.
const CLASSES: usize = 1000;

/// The lines of the page's blocks of commands, comments among them.
fn lines() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|b| b.split("```").next().unwrap().lines());
    lines.map(str::trim).filter(|l| !l.is_empty()).collect()
}

/// The words of a command behind the program's name, which a launcher may stand before.
fn words(line: &str) -> Vec<&str> {
    let (before, own) = line.split_once("nextscale ").unwrap();
    assert!(
        before.is_empty() || before.ends_with("--no-python "),
        "{line}"
    );
    own.split_whitespace().collect()
}

#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Train {
    #[command(flatten)]
    args: TransformerArgs,
}

fn options(words: &[&str]) -> TransformerOptions {
    use clap::Parser;
    let parsed = Train::try_parse_from(words).map_err(|e| e.to_string());
    parsed.map_or_else(|e| panic!("{words:?}: {e}"), |train| train.args.options)
}

#[test]
fn official_lines_are_the_recipes() {
    let mut official = Vec::new();
    for pair in lines().windows(2) {
        let Some(flags) = pair[0]
            .starts_with('#')
            .then(|| pair[0].split_once("train.py "))
        else {
            continue;
        };
        let flags = flags.unwrap().1;
        // Ours below it has the same flags, and two more.
        let (ours, more) = pair[1].split_once(flags).unwrap();
        assert!(
            more.is_empty() && ours.contains("--no-python nextscale train "),
            "{ours}"
        );
        let ours = words(pair[1]);
        let added = [
            format!("--data_path={DATA}"),
            "--tokenizer=vae_ch160v4096z32.pth".into(),
        ];
        assert_eq!(ours[1..3], added);
        assert_eq!(ours[3..], flags.split(' ').collect::<Vec<_>>());
        official.push(ours[3..].to_vec());
    }
    assert_eq!(official.len(), Recipe::PUBLISHED.len());
    for (flags, recipe) in official.iter().zip(Recipe::PUBLISHED) {
        let own = options(flags);
        own.resolve(8).unwrap();
        let mut of_recipe = options(&[&format!("--recipe={}", recipe.name())]);
        of_recipe.recipe = None;
        of_recipe.folder.canvas.background = None;
        assert_eq!(own, of_recipe, "{}", recipe.name());
    }
}

/// Flags that make a command small.
fn small(words: &[&str]) -> &'static [&'static str] {
    match words[0] {
        "train" => &[
            "--procs=1",
            "--depth=1",
            "--saln=0",
            "--pn=1_2",
            "--bs=4",
            "--ep=1",
            "--mid_reso=1",
            "--stop_after=1",
            "--device=cpu",
            "--quiet",
        ],
        "train-tokenizer" => &[
            "--ch=32",
            "--vocab=32",
            "--pn=1_2",
            "--bs=4",
            "--mid_reso=1",
            "--stop_after=1",
            "--device=cpu",
            "--quiet",
        ],
        "sample" if words.iter().any(|w| w.starts_with("--classes=")) => &["--device=cpu"],
        "sample" => &["--classes=0,999", "--per_class=1", "--device=cpu"],
        "tokenize" | "reconstruct" => &["--pn=1_2", "--mid_reso=1", "--device=cpu"],
        "edit" | "eval" => &["--device=cpu"],
        _ => &[],
    }
}

/// A folder with all files that the page names.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let picture = bitmap(32, 1);
    for (split, i) in ["train", "val"]
        .into_iter()
        .flat_map(|s| (0..CLASSES).map(move |i| (s, i)))
    {
        let class = at("imagenet").join(split).join(format!("n{i:04}"));
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join("a.bmp"), &picture).unwrap();
    }
    let edited =
        image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8 * 8, y as u8 * 8, 90]));
    edited.save(at("imagenet_512.jpg")).unwrap();
    let data = format!("--data_path={}", at("imagenet").display());
    let out = |name: &str| format!("--out={}", at(name).display());
    let file = |name: &str| at(name).display().to_string();
    let first = ["train-tokenizer", &data, &out("t")];
    succeed(&[&first[..], small(&first)].concat());
    succeed(&[
        "convert",
        &file("t/tokenizer-ckpt-last.safetensors"),
        &file("vae_ch160v4096z32.pth"),
        "--part=vae",
    ]);
    let tokenizer = format!("--tokenizer={}", file("vae_ch160v4096z32.pth"));
    let then = ["train", &data, &tokenizer, &out("v")];
    succeed(&[&then[..], small(&then)].concat());
    for name in ["var_d16.pth", "var_d36.pth"] {
        let from = file("v/ar-ckpt-last.safetensors");
        succeed(&["convert", &from, &file(name), "--part=var"]);
    }
    dir
}

#[test]
fn every_command_line_runs() {
    let dir = prepared();
    let there = |name: &str| dir.path().join(name).exists();
    let mut ran = Vec::new();
    for line in lines().into_iter().filter(|l| !l.starts_with('#')) {
        let own = words(line);
        let trains = own[0] == "train";
        if trains && there("local_output") {
            // A model of its own, not one that goes on.
            std::fs::remove_dir_all(dir.path().join("local_output")).unwrap();
        }
        let here: Vec<String> = own.iter().map(|w| w.replace(DATA, "imagenet")).collect();
        let given: Vec<&str> = here.iter().map(String::as_str).collect();
        let mut command = nextscale(&[&given[..], small(&own)].concat());
        let out = command.current_dir(dir.path()).output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{line}: {told}");
        if trains {
            assert!(there("local_output/ar-ckpt-last.safetensors"), "{line}");
            // The best one comes with an evaluation, which a run of one step does not reach.
            let [last, best] = ["last", "best"].map(|k| format!("local_output/ar-ckpt-{k}"));
            let at = |name: &str| dir.path().join(format!("{name}.safetensors"));
            std::fs::copy(at(&last), at(&best)).unwrap();
        }
        ran.push(own[0]);
    }
    for command in [
        "train",
        "train-tokenizer",
        "plan",
        "convert",
        "info",
        "sample",
        "edit",
    ] {
        assert!(ran.contains(&command), "{command} of {ran:?}");
    }
    for made in [
        "ar-ckpt-last.pth",
        "my_vae.pth",
        "demo.png",
        "samples.npz",
        "other_class.png",
        "val_tokens.safetensors",
    ] {
        assert!(there(made), "{made}");
    }
    goes_on_from_the_official_file(dir.path());
}

/// The official code's checkpoint in the folder of a run is taken up.
fn goes_on_from_the_official_file(dir: &Path) {
    let there = |name: &str| dir.join("local_output").join(name);
    let ours: PathBuf = there("ar-ckpt-last.safetensors");
    std::fs::rename(dir.join("ar-ckpt-last.pth"), there("ar-ckpt-last.pth")).unwrap();
    std::fs::remove_file(&ours).unwrap();
    let base = [
        "train",
        "--data_path=imagenet",
        "--tokenizer=vae_ch160v4096z32.pth",
        "--recipe=d16",
    ];
    let flags = [&base[..], small(&base), &["--stop_after=2"]].concat();
    let flags: Vec<&str> = flags.into_iter().filter(|f| *f != "--quiet").collect();
    let mut command = nextscale(&flags);
    let out = command.current_dir(dir).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{told}");
    assert!(
        told.contains("resumed from") && told.contains("ar-ckpt-last.pth"),
        "{told}"
    );
    assert!(ours.exists());
}

/// Flags that the page's text and tables name.
#[test]
fn every_flag_that_is_named_is_known() {
    let torchrun = [
        "no-python",
        "nproc_per_node",
        "nnodes",
        "node_rank",
        "master_addr",
        "master_port",
        "flag",
    ];
    let mut named = 0;
    for code in PAGE.split('`').skip(1).step_by(2) {
        for word in code.split_whitespace().filter(|w| w.starts_with("--")) {
            let name = word.trim_start_matches('-').split('=').next().unwrap();
            if torchrun.contains(&name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            let known = ["train", "sample", "edit", "convert", "plan", "tokenize"]
                .iter()
                .any(|command| {
                    let out = nextscale(&[command, &format!("--{name}=1")])
                        .output()
                        .unwrap();
                    !String::from_utf8_lossy(&out.stderr).contains("unexpected argument")
                });
            assert!(known, "--{name}");
            named += 1;
        }
    }
    assert!(named > 60, "{named}");
}
