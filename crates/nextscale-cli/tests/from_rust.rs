//! The library's door to images and the command draw the same.

mod common;

use common::runs::{Tokenizer, Transformer, prepared, texts};
use common::succeed;
use nextscale::options::values::DeviceChoice;
use nextscale::{ErrorKind, draw};

#[test]
fn the_library_draws_what_the_command_draws() {
    let dir = prepared();
    let flags = Transformer.flags(dir.path(), "run", &["--ep=1", "--depth=1"]);
    succeed(&texts(&flags));
    let model = dir.path().join("run").join(Transformer.last());
    let out = dir.path().join("drawn");
    succeed(&[
        "sample",
        &format!("--model={}", model.display()),
        &format!("--out={}", out.display()),
        "--classes=class1,0",
        "--per_class=3",
        "--seed=9",
        "--cfg=2",
        "--top_k=20",
        "--top_p=0.9",
        "--bs=4",
        "--device=cpu",
    ]);
    let mut draw = draw(&model)
        .device(DeviceChoice::Cpu)
        .classes([
            nextscale::generate::Class::from("class1"),
            nextscale::generate::Class::from(0),
        ])
        .per_class(3)
        .seed(9)
        .cfg(2.0)
        .top_k(20)
        .top_p(0.9)
        .batch(4);
    let names = draw.class_names().unwrap().unwrap().to_vec();
    assert_eq!(names, ["class0", "class1"]);
    let images = draw.images().unwrap();
    assert_eq!(images.len(), 6);
    for (i, image) in images.iter().enumerate() {
        let label = usize::from(i < 3);
        assert_eq!(image.label, label);
        assert_eq!(image.class.as_deref(), Some(names[label].as_str()));
        let there = image::open(out.join(format!("class{label}-{}.png", i % 3)))
            .unwrap()
            .to_rgb8();
        let side = image.picture.width;
        assert_eq!([side, image.picture.height], [32, 32]);
        assert_eq!(image.picture.rgb, there.into_raw(), "image {i}");
    }
    // Again without opening the file: the same images, and others of another seed.
    std::fs::rename(&model, dir.path().join("moved")).unwrap();
    let again = draw.images().unwrap();
    assert_eq!(again[5].picture.rgb, images[5].picture.rgb);
    let mut other = draw.seed(10);
    assert_ne!(other.images().unwrap()[5].picture.rgb, again[5].picture.rgb);

    // What can't be: a line that names the setting.
    let mut refuse = |wanted: &str, change: &dyn Fn(nextscale::generate::Draw) -> _| {
        let taken = std::mem::replace(&mut other, nextscale::draw("nowhere"));
        let mut changed: nextscale::generate::Draw = change(taken);
        let error = changed.images().unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Input, 2));
        let text = error.to_string();
        assert!(text.starts_with(wanted) && !text.contains('\n'), "{text}");
        other = changed.classes([0]).per_class(1).cfg(1.0).batch(1);
    };
    refuse("`classes`=\"dog\": it is none of the model's", &|d| {
        d.classes(["dog"])
    });
    refuse("`classes`=2: the model has classes 0 to 1", &|d| {
        d.classes([2])
    });
    refuse("`classes`=-1: ", &|d| d.classes([-1]));
    refuse("`per_class`=0: ", &|d| d.per_class(0));
    refuse("`batch`=0: ", &|d| d.batch(0));
    refuse("`cfg`=NaN: ", &|d| d.cfg(f32::NAN));
    let gone = nextscale::draw(&model).images().err().unwrap();
    assert_eq!(gone.exit_code(), 2);
    assert!(gone.to_string().contains("ar-ckpt-last"), "{gone}");

    // A tokenizer's file alone draws nothing.
    let tokenizer = dir.path().join("tokenizer").join(Tokenizer.files()[1]);
    let error = nextscale::draw(tokenizer).images().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Input, "{error}");
}
