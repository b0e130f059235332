//! tmp
use nextscale::verify::Bundle;
fn main() {
    for p in std::env::args().skip(1) {
        let bundles = match Bundle::find(&p) { Ok(b) => b, Err(e) => { println!("ERROR {e}"); continue } };
        for b in bundles {
            let t = std::time::Instant::now();
            match b.check(&mut |l| println!("{:<11} {l}", b.kind.name())) {
                Ok(c) => println!("== {} {}: {c:?} {:.1?}", b.kind.name(), b.path.display(), t.elapsed()),
                Err(e) => println!("== {} {}: ERROR {e}", b.kind.name(), b.path.display()),
            }
        }
    }
}
