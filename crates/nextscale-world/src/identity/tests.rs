use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn find(vars: &[(&str, &str)]) -> Result<Identity> {
    find_given(&Given::default(), vars)
}

fn find_given(given: &Given, vars: &[(&str, &str)]) -> Result<Identity> {
    let vars: HashMap<_, _> = vars.iter().copied().collect();
    Identity::find(given, |name| {
        vars.get(name).map(|value| (*value).to_owned())
    })
}

fn refused(vars: &[(&str, &str)]) -> String {
    match find(vars) {
        Err(Error::Input(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_set_is_alone() {
    for vars in [&[][..], &[("RANK", ""), ("WORLD_SIZE", "")]] {
        let identity = find(vars).unwrap();
        assert_eq!((identity.rank, identity.size), (0, 1));
        assert_eq!(identity.source, Source::Nobody);
    }
}

const TORCHRUN: [(&str, &str); 8] = [
    ("RANK", "3"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "1"),
    ("LOCAL_WORLD_SIZE", "2"),
    ("MASTER_ADDR", "host-a"),
    ("MASTER_PORT", "29400"),
    ("TORCHELASTIC_RUN_ID", "none"),
    ("TORCHELASTIC_RESTART_COUNT", "1"),
];

#[test]
fn torchrun() {
    let identity = find(&TORCHRUN).unwrap();
    assert_eq!((identity.rank, identity.size), (3, 4));
    assert_eq!(
        (identity.local_rank, identity.local_size),
        (Some(1), Some(2))
    );
    assert_eq!(
        (&identity.masters[..], identity.ports),
        (&["host-a".to_owned()][..], Ports::After(29400))
    );
    assert!(!identity.is_one_host());
    assert_eq!((identity.incarnation, identity.source), (0, Source::Plain));

    let mut vars = TORCHRUN;
    (vars[2].1, vars[3].1) = ("3", "4");
    let identity = find(&vars).unwrap();
    assert!(identity.is_one_host());
    assert_eq!(identity.incarnation, 1);
}

#[test]
fn what_contradicts_is_named_with_what_to_do() {
    for (vars, words) in [
        (
            &[("WORLD_SIZE", "4")][..],
            &["WORLD_SIZE is 4", "RANK is not set", "unset"][..],
        ),
        (&[("RANK", "1")], &["RANK is 1", "WORLD_SIZE is not set"]),
        (
            &[("RANK", "x"), ("WORLD_SIZE", "4")],
            &["RANK is 'x'", "unset it"],
        ),
        (&[("RANK", "-1"), ("WORLD_SIZE", "4")], &["RANK is '-1'"]),
        (
            &[("RANK", "4"), ("WORLD_SIZE", "4")],
            &["RANK is 4", "WORLD_SIZE is 4", "from 0 to 3"],
        ),
        (&[("RANK", "0"), ("WORLD_SIZE", "0")], &["WORLD_SIZE is 0"]),
        (
            &[("RANK", "0"), ("WORLD_SIZE", "70000")],
            &["WORLD_SIZE is 70000", "65536"],
        ),
        (
            &[("RANK", "0"), ("WORLD_SIZE", "2")],
            &["MASTER_ADDR is not set"],
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "a"),
                ("MASTER_PORT", "0"),
            ],
            &["MASTER_PORT is 0"],
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "a"),
                ("MASTER_PORT", "x"),
            ],
            &["MASTER_PORT is 'x'"],
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "2"),
                ("LOCAL_RANK", "2"),
                ("LOCAL_WORLD_SIZE", "2"),
            ],
            &["rank on this machine is 2 of 2"],
        ),
        (
            &[
                ("RANK", "0"),
                ("WORLD_SIZE", "1"),
                ("LOCAL_WORLD_SIZE", "2"),
            ],
            &["2 processes on this machine"],
        ),
        (
            &[("NEXTSCALE_WORLD_SIZE", "4")],
            &["NEXTSCALE_RANK is not set"],
        ),
        (
            &[("OMPI_COMM_WORLD_RANK", "4")],
            &["OMPI_COMM_WORLD_SIZE is not set"],
        ),
        (
            &[("PMI_RANK", "0"), ("PMI_SIZE", "2")],
            &["where rank 0", "NEXTSCALE_MASTER"],
        ),
        (
            &[("NEXTSCALE_SECRET", "short")],
            &["NEXTSCALE_SECRET", "8 characters"],
        ),
        (
            &[("NEXTSCALE_MASTER", "a:b")],
            &["NEXTSCALE_MASTER is 'a:b'", "HOST:PORT"],
        ),
        (&[("NEXTSCALE_MASTER", ":5")], &["names no host"]),
    ] {
        let text = refused(vars);
        for word in words {
            assert!(text.contains(word), "{vars:?}: {text}");
        }
        assert!(!text.contains('\n'));
    }
}

const STEP: [(&str, &str); 9] = [
    ("SLURM_JOB_ID", "17"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "2"),
    ("SLURM_NTASKS", "3"),
    ("SLURM_STEP_NUM_TASKS", "3"),
    ("SLURM_LOCALID", "0"),
    ("SLURM_NODEID", "1"),
    ("SLURM_STEP_NODELIST", "gpu[01-02]"),
    ("SLURM_STEP_TASKS_PER_NODE", "2,1"),
];

#[test]
fn a_step_of_slurm() {
    let identity = find(&STEP).unwrap();
    assert_eq!(
        (identity.rank, identity.size, identity.source),
        (2, 3, Source::Slurm)
    );
    assert_eq!(
        (identity.local_rank, identity.local_size),
        (Some(0), Some(1))
    );
    assert_eq!(identity.hosts, ["gpu01", "gpu02"]);
    assert_eq!(identity.masters, ["gpu01"]);
    assert!(identity.job.contains("17.0") && identity.ports == Ports::OfJob);
    let mut one = STEP;
    one[7].1 = "gpu01";
    let identity = find(&one).unwrap();
    assert!(identity.is_one_host());
    assert_eq!(identity.masters, ["127.0.0.1"]);
    one[7].1 = "gpu[";
    assert!(
        find(&one)
            .unwrap_err()
            .to_string()
            .contains("SLURM_STEP_NODELIST is 'gpu['")
    );
}

#[test]
fn a_script_of_sbatch_and_a_shell_of_salloc_are_one_process() {
    let script: Vec<_> = STEP
        .into_iter()
        .filter(|(name, _)| !name.contains("STEP"))
        .collect();
    assert_eq!(find(&script).unwrap().source, Source::Nobody);
    // The number of an interactive step.
    let mut shell = STEP;
    shell[1].1 = "4294967290";
    assert_eq!(find(&shell).unwrap().source, Source::Nobody);
}

#[test]
fn the_inner_launcher_counts() {
    // mpirun's helpers are a step of srun with a rank of their own.
    let mut vars = STEP.to_vec();
    vars.extend([("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "8")]);
    let identity = find(&vars).unwrap();
    assert_eq!(
        (identity.rank, identity.size, identity.source),
        (5, 8, Source::OpenMpi)
    );
    assert_eq!(identity.masters, ["gpu01"]);
    // srun --mpi=pmi2 says the same twice; mpiexec within a step does not.
    let mut vars = STEP.to_vec();
    vars.extend([("PMI_RANK", "2"), ("PMI_SIZE", "3")]);
    assert_eq!(find(&vars).unwrap().source, Source::Slurm);
    vars.extend([("PMI_SIZE", "8")]);
    assert_eq!(find(&vars).unwrap().source, Source::Hydra);
    // torchrun started by srun, and our own launcher within torchrun.
    let mut vars = STEP.to_vec();
    vars.extend(TORCHRUN);
    assert_eq!(find(&vars).unwrap().source, Source::Plain);
    vars.extend([("NEXTSCALE_RANK", "0"), ("NEXTSCALE_WORLD_SIZE", "1")]);
    assert_eq!(find(&vars).unwrap().source, Source::Launch);
}

#[test]
fn mpirun_and_mpiexec() {
    let mut vars = vec![
        ("OMPI_COMM_WORLD_RANK", "1"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ("PMIX_NAMESPACE", "79101953"),
        (
            "OMPI_MCA_orte_hnp_uri",
            "791.0;tcp://10.0.0.1,127.0.0.1,10.1.0.1:466;tcp6://[fd00::2]:48",
        ),
    ];
    let identity = find(&vars).unwrap();
    assert_eq!(identity.masters, ["127.0.0.1"]);
    assert_eq!(identity.job, "ompi 79101953");
    vars[3].1 = "1";
    vars[2].1 = "0";
    assert_eq!(
        find(&vars).unwrap().masters,
        ["10.0.0.1", "10.1.0.1", "fd00::2"]
    );
    vars[4].1 = "prterun-host-a-123@1";
    vars.pop();
    assert_eq!(find(&vars).unwrap().masters, ["host-a"]);

    let vars = [
        ("PMI_RANK", "1"),
        ("PMI_SIZE", "2"),
        ("MPI_LOCALRANKID", "1"),
        ("MPI_LOCALNRANKS", "2"),
    ];
    let identity = find(&vars).unwrap();
    assert_eq!(
        (identity.rank, identity.size, identity.source),
        (1, 2, Source::Hydra)
    );
    assert!(identity.is_one_host());
}

#[test]
fn flags_come_first() {
    let given = Given {
        rank: Some(1),
        world_size: Some(2),
        master: Some("[fd00::1]:7000".into()),
        hosts: vec!["a".into(), "b".into()],
        local_rank: Some(0),
    };
    let identity = find_given(&given, &TORCHRUN).unwrap();
    assert_eq!(
        (identity.rank, identity.size, identity.source),
        (1, 2, Source::Flags)
    );
    assert_eq!(identity.masters, ["[fd00::1]"]);
    assert_eq!(identity.ports, Ports::From(7000));
    assert_eq!((identity.hosts.len(), identity.local_rank), (2, Some(0)));
    // Single ones replace what the launcher says.
    let given = Given {
        master: Some("fd00::1".into()),
        local_rank: Some(0),
        ..Given::default()
    };
    let identity = find_given(&given, &TORCHRUN).unwrap();
    assert_eq!((identity.rank, identity.local_rank), (3, Some(0)));
    assert_eq!(
        (&identity.masters[0][..], identity.ports),
        ("fd00::1", Ports::After(29400))
    );
    for (given, word) in [
        (
            Given {
                rank: Some(1),
                ..Given::default()
            },
            "`world_size` is not given",
        ),
        (
            Given {
                world_size: Some(1),
                ..Given::default()
            },
            "`rank` is not given",
        ),
        (
            Given {
                rank: Some(2),
                world_size: Some(2),
                ..Given::default()
            },
            "`rank` is 2, but `world_size` is 2",
        ),
    ] {
        let error = find_given(&given, &[]).unwrap_err();
        assert!(
            error.is_input() && error.to_string().contains(word),
            "{error}"
        );
    }
}

#[test]
fn a_secret_is_not_shown() {
    let identity = find(&[("NEXTSCALE_SECRET", "correct horse battery")]).unwrap();
    assert!(!format!("{identity:?}").contains("horse"));
}

const NAMES: [&str; 24] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NODEID",
    "SLURM_STEP_TASKS_PER_NODE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_MCA_orte_hnp_uri",
    "PMIX_NAMESPACE",
    "PMI_RANK",
    "PMI_SIZE",
    "PMI_PORT",
    "NEXTSCALE_RANK",
    "NEXTSCALE_WORLD_SIZE",
    "NEXTSCALE_MASTER",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn any_environment_is_a_place_or_one_line(
        vars in proptest::collection::hash_map(
            proptest::sample::select(&NAMES[..]),
            prop_oneof![
                (0u64..6).prop_map(|n| n.to_string()),
                "[a-b0-3:;/@,()x\\[\\]. -]{0,12}",
            ],
            0..12,
        ),
    ) {
        match Identity::find(&Given::default(), |name| vars.get(name).cloned()) {
            Ok(identity) => {
                prop_assert!(identity.rank < identity.size);
                prop_assert!(identity.size == 1 || !identity.masters.is_empty());
                if let (Some(rank), Some(size)) = (identity.local_rank, identity.local_size) {
                    prop_assert!(rank < size && size <= identity.size);
                }
            }
            Err(error) => {
                prop_assert!(error.is_input());
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
