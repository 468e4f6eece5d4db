//! Follows a folder of TUF metadata with `tough`: a peer of ours that nobody here wrote.
//!
//! `tern-tough ROOT STORE METADATA TARGETS NAME…` trusts the file ROOT, keeps what it trusts in the folder STORE, reads
//! `<role>.json` and `<n>.root.json` in METADATA and targets below TARGETS. Prints what it believes as JSON: versions of
//! all roles, and of each target its length and SHA-256. What it refuses is an error on standard error, and code 1.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};
use tough::schema::Targets;
use tough::{IntoVec as _, RepositoryLoader, TargetName};
use url::Url;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    match runtime.block_on(follow(&std::env::args().skip(1).collect::<Vec<_>>())) {
        Ok(found) => println!("{found}"),
        Err(refused) => {
            let mut causes = vec![refused.to_string()];
            let mut cause = refused.source();
            while let Some(next) = cause {
                causes.push(next.to_string());
                cause = next.source();
            }
            eprintln!("{}", causes.join(": "));
            std::process::exit(1);
        }
    }
}

async fn follow(words: &[String]) -> Result<Value, Box<dyn Error>> {
    let [root, store, metadata, targets, names @ ..] = words else {
        return Err("ROOT STORE METADATA TARGETS NAME… are needed".into());
    };
    let folder = |path: &String| Url::from_directory_path(Path::new(path)).map_err(|()| "a folder is no full path");
    let root = std::fs::read(root)?;
    let loader = RepositoryLoader::new(&root, folder(metadata)?, folder(targets)?);
    let repository = loader.datastore(Path::new(store)).load().await?;

    let mut versions = BTreeMap::from([
        ("root".to_owned(), repository.root().signed.version.get()),
        ("timestamp".to_owned(), repository.timestamp().signed.version.get()),
        ("snapshot".to_owned(), repository.snapshot().signed.version.get()),
        ("targets".to_owned(), repository.targets().signed.version.get()),
    ]);
    // tough has read every delegated role by now, or it would have refused the whole.
    versions.extend(delegated(&repository.targets().signed));
    let mut found = BTreeMap::new();
    for name in names {
        let stream = repository.read_target(&TargetName::new(name)?).await?;
        let bytes = match stream {
            Some(stream) => stream.into_vec().await?,
            None => return Err(format!("nobody names the target {name}").into()),
        };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        found.insert(name, json!({"length": bytes.len(), "sha256": hex}));
    }
    Ok(json!({"versions": versions, "targets": found}))
}

fn delegated(targets: &Targets) -> BTreeMap<String, u64> {
    let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
    roles
        .filter_map(|role| Some((role.name.clone(), role.targets.as_ref()?.signed.version.get())))
        .collect()
}
