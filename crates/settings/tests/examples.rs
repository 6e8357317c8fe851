//! What the documents tell people to write.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

/// What `docs/vip.md` tells people to write is accepted as it stands.
#[test]
fn the_examples_of_addresses_and_names_are_accepted() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vip.md")).unwrap();
    let env: BTreeMap<String, String> = BTreeMap::new();
    let mut accepted = (0, 0);
    for block in text.split("```yaml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let around = if block.contains("scope:") { "" } else { "scope: a\nname: n\netcd3: {host: h}\n" };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{around}{block}").unwrap();
        if block.contains("vip:") {
            let loaded = settings::load_vip(file.path(), &env).map_err(|problems| problems.to_string());
            assert!(!loaded.unwrap().vip.is_empty(), "{block}");
            accepted.0 += 1;
        }
        if block.contains("dns:") {
            let loaded = settings::load_dns(file.path(), &env).map_err(|problems| problems.to_string());
            assert!(!loaded.unwrap().dns.zone.is_empty(), "{block}");
            accepted.1 += 1;
        }
    }
    assert!(accepted.0 >= 3 && accepted.1 >= 1, "{accepted:?}");
}
