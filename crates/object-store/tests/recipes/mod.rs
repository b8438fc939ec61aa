//! The README's code, word for word: it compiles, and the stores that it builds hold what they
//! should.

mod lance;
#[expect(dead_code, reason = "there is no such bucket")]
mod s3;
mod slatedb;

#[test]
fn the_readme_has_the_code_that_is_compiled_here() {
    let here = [
        include_str!("s3.rs"),
        include_str!("datafusion.rs"),
        include_str!("slatedb.rs"),
        include_str!("lance.rs"),
    ];
    let blocks = include_str!("../../README.md").split("```rust\n").skip(1);
    let blocks: Vec<_> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), here.len());
    for (block, here) in blocks.into_iter().zip(here) {
        assert!(here.contains(block), "it is not compiled:\n{block}");
    }
}
