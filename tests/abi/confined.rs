//! What a plugin in a process of its own cannot do, what it can do once it was granted, and what is said about it.
//! Every try is first made without fences and must succeed there, so that a failure inside means something.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::PathBuf,
};

use jackfield::config::{ExecPermission, PluginPermissions};
use jackfield_plugin_api::{Effect, GatewayKey};
use jackfield_tests::plugins::{PluginFolder, library_name, misbehave, patched};
use serde_json::{Value, json};

use crate::harness::{Loaded, Setup, logged, watch_log};

const ID: &str = "fixture_co";

async fn confined(permissions: PluginPermissions) -> Loaded {
    Setup::isolated().grant(ID, permissions).load(PluginFolder::new().with_fixture(ID)).await
}

async fn unconfined() -> Loaded {
    Setup::default().load(PluginFolder::new().with_fixture(ID)).await
}

/// `Ok` with what the plugin got, or `Err` with what the system said to it.
async fn probe(loaded: &Loaded, arguments: Value) -> Result<Value, String> {
    let output = loaded.call(ID, "probe", arguments).await.expect("the probe itself works").to_text();
    let mut outcome: Value = serde_json::from_str(&output).unwrap();
    match outcome.get("error") {
        Some(error) => Err(error.as_str().unwrap().to_owned()),
        None => Ok(outcome["ok"].take()),
    }
}

/// What is outside of a plugin, with a secret in it.
struct Outside {
    folder: tempfile::TempDir,
}

const CANARY: &str = "canary-7c1f";

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(folder.path().join("secret"), CANARY).unwrap();
        fs::create_dir(folder.path().join("granted")).unwrap();
        fs::write(folder.path().join("granted/open"), "open").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn files_are_out_of_reach_without_a_grant() {
    let outside = Outside::new();
    let secret = outside.path("secret");
    let tries = |name: &str| {
        [
            json!({ "what": "read", "path": secret }),
            json!({ "what": "list", "path": outside.folder.path() }),
            json!({ "what": "append", "path": secret, "text": "" }),
            json!({ "what": "write", "path": outside.path(name), "text": "x" }),
            json!({ "what": "make_folder", "path": outside.path(&format!("{name}.d")) }),
            json!({ "what": "link", "path": secret, "to": outside.path(&format!("{name}.l")) }),
            json!({ "what": "chmod", "path": secret }),
            json!({ "what": "rename", "path": outside.path(&format!("{name}.l")), "to": outside.path(&format!("{name}.r")) }),
            json!({ "what": "delete", "path": outside.path(&format!("{name}.r")) }),
        ]
    };
    let free = unconfined().await;
    for attempt in tries("free") {
        probe(&free, attempt.clone()).await.unwrap_or_else(|error| panic!("{attempt} works without fences: {error}"));
    }
    fs::write(outside.path("inside.l"), "to be renamed").unwrap();
    fs::write(outside.path("inside.r"), "to be deleted").unwrap();
    let before = outside.names();
    let loaded = confined(PluginPermissions::default()).await;
    for attempt in tries("inside") {
        let outcome = probe(&loaded, attempt.clone()).await;
        assert!(outcome.is_err(), "{attempt}: {outcome:?}");
    }
    assert_eq!(outside.names(), before);
    assert_eq!(fs::read_to_string(&secret).unwrap(), CANARY);
    for path in ["/etc/passwd", "/proc/1/environ", "/etc/shadow", "/etc/hostname", "/sys/kernel/notes"] {
        assert!(probe(&loaded, json!({ "what": "read", "path": path })).await.is_err(), "{path}");
    }
    loaded.assert_answers(ID).await;
}

#[tokio::test]
async fn what_is_granted_is_in_reach_and_nothing_beside_it() {
    let outside = Outside::new();
    let read =
        confined(PluginPermissions { read: vec![outside.path("granted")], ..PluginPermissions::default() }).await;
    assert_eq!(probe(&read, json!({ "what": "read", "path": outside.path("granted/open") })).await.unwrap(), "open");
    let outcome = probe(&read, json!({ "what": "append", "path": outside.path("granted/open"), "text": "x" })).await;
    assert!(outcome.is_err(), "reading is not writing: {outcome:?}");
    let through = outside.path("granted/../secret");
    assert!(probe(&read, json!({ "what": "read", "path": through })).await.is_err());
    std::os::unix::fs::symlink(outside.path("secret"), outside.path("granted/link")).unwrap();
    assert!(probe(&read, json!({ "what": "read", "path": outside.path("granted/link") })).await.is_err());
    assert_eq!(read.tool(ID, "echo").await.effect(&json!({})), Effect::ReadOnly, "it cannot change anything");

    let write =
        confined(PluginPermissions { write: vec![outside.path("granted")], ..PluginPermissions::default() }).await;
    let file = outside.path("granted/new");
    probe(&write, json!({ "what": "write", "path": file, "text": "written" })).await.unwrap();
    assert_eq!(probe(&write, json!({ "what": "read", "path": file })).await.unwrap(), "written");
    probe(&write, json!({ "what": "rename", "path": file, "to": outside.path("granted/renamed") })).await.unwrap();
    probe(&write, json!({ "what": "delete", "path": outside.path("granted/renamed") })).await.unwrap();
    assert!(probe(&write, json!({ "what": "write", "path": outside.path("beside"), "text": "x" })).await.is_err());
    let out = json!({ "what": "rename", "path": outside.path("granted/open"), "to": outside.path("moved") });
    assert!(probe(&write, out).await.is_err());
    let echo = write.tool(ID, "echo").await;
    assert_eq!((echo.effect(&json!({})), echo.declared_effect()), (Effect::Writes, Some(Effect::Writes)));
    assert!(!echo.is_read_only(), "a declaration is believed only as far as the fences make it true");
}

#[tokio::test]
async fn the_network_is_out_of_reach_without_a_grant_and_ports_are_held_to() {
    let (granted, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let to = |listener: &TcpListener| json!({ "what": "connect", "to": listener.local_addr().unwrap().to_string() });
    let tries = [
        to(&granted),
        to(&other),
        json!({ "what": "listen" }),
        json!({ "what": "datagram", "to": datagrams.local_addr().unwrap().to_string() }),
        json!({ "what": "unix_socket", "path": socket }),
    ];
    let free = unconfined().await;
    for attempt in &tries {
        probe(&free, attempt.clone()).await.unwrap_or_else(|error| panic!("{attempt} works without fences: {error}"));
    }
    let loaded = confined(PluginPermissions::default()).await;
    for attempt in &tries {
        assert!(probe(&loaded, attempt.clone()).await.is_err(), "{attempt}");
    }

    // The manifest asks for one host at one port, so the grant of any host is the grant of that port.
    let address = granted.local_addr().unwrap().to_string();
    let asks = [(r#""id":"fixture_00""#, r#""id":"fixture_co""#), ("example.com:443", address.as_str())];
    let folder = PluginFolder::new().with_file(&library_name(ID), &patched(misbehave(), &asks));
    let permissions = PluginPermissions { network: vec!["*".to_owned()], ..PluginPermissions::default() };
    let loaded = Setup::isolated().grant(ID, permissions).load(folder).await;
    probe(&loaded, to(&granted)).await.unwrap();
    assert!(probe(&loaded, to(&other)).await.is_err(), "another port");
    assert!(probe(&loaded, json!({ "what": "listen" })).await.is_err());
    assert!(probe(&loaded, json!({ "what": "unix_socket", "path": socket })).await.is_err());
    assert_eq!(loaded.tool(ID, "echo").await.effect(&json!({})), Effect::Writes, "it may send what it likes");
}

#[tokio::test]
async fn programs_and_other_processes_are_out_of_reach() {
    let tries = [
        json!({ "what": "run", "path": "/bin/sh", "text": "echo hello" }),
        json!({ "what": "signal", "pid": std::process::id() }),
    ];
    let free = unconfined().await;
    for attempt in &tries {
        probe(&free, attempt.clone()).await.unwrap_or_else(|error| panic!("{attempt} works without fences: {error}"));
    }
    let loaded = confined(PluginPermissions::default()).await;
    for attempt in &tries {
        assert!(probe(&loaded, attempt.clone()).await.is_err(), "{attempt}");
    }
    let status = probe(&loaded, json!({ "what": "status" })).await.unwrap();
    let status = status.as_str().unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"), "{status}");
    assert_eq!((field("CapEff:"), field("CapPrm:")), ("0000000000000000", "0000000000000000"), "{status}");
}

#[tokio::test]
async fn a_granted_program_runs_within_the_same_fences() {
    let outside = Outside::new();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let permissions = PluginPermissions {
        exec: ExecPermission::Programs(vec![shell.clone(), "/usr/bin".into(), "/bin".into()]),
        ..PluginPermissions::default()
    };
    let loaded = confined(permissions).await;
    let run = async |text: String| probe(&loaded, json!({ "what": "run", "path": shell, "text": text })).await.unwrap();
    assert_eq!(run("echo hello".to_owned()).await["out"], "hello\n");
    let secret = outside.path("secret");
    let read = run(format!("while read line; do echo $line; done < {}", secret.display())).await;
    assert!(!read.to_string().contains(CANARY) && read["code"] != 0, "{read}");
    let write = run(format!("echo x > {}", outside.path("written").display())).await;
    assert!(write["code"] != 0 && !outside.path("written").exists(), "{write}");
}

#[tokio::test]
async fn a_worker_inherits_nothing() {
    let permissions = PluginPermissions {
        env: [
            ("GRANTED".to_owned(), Some(GatewayKey::new("its value"))),
            ("MISSING".to_owned(), None),
            ("NOT_ASKED".to_owned(), Some(GatewayKey::new("not asked"))),
        ]
        .into(),
        ..PluginPermissions::default()
    };
    let kept = fs::File::open("/dev/null").unwrap();
    // As a careless library would: this one is not closed at exec.
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
    let loaded = confined(permissions).await;
    assert_eq!(probe(&loaded, json!({ "what": "environment" })).await.unwrap(), json!({ "GRANTED": "its value" }));
    let descriptors = probe(&loaded, json!({ "what": "descriptors" })).await.unwrap();
    let descriptors = descriptors.as_object().unwrap();
    let count = |kind: &str| descriptors.values().filter(|target| target.as_str().unwrap().starts_with(kind)).count();
    assert_eq!(descriptors["0"], "/dev/null");
    assert!(descriptors["1"].as_str().unwrap().starts_with("pipe:") && descriptors["1"] == descriptors["2"]);
    // The one socket, and what two runtimes are made of.
    let unknown: Vec<_> = descriptors
        .iter()
        .filter(|(number, _)| number.parse::<u32>().unwrap() > 2)
        .filter(|(_, target)| !["socket:", "anon_inode:"].iter().any(|kind| target.as_str().unwrap().starts_with(kind)))
        // The list itself, while it was read.
        .filter(|(_, target)| !target.as_str().unwrap().ends_with("/fd"))
        .collect();
    assert!(unknown.is_empty(), "{descriptors:?}");
    assert!(count("/dev/null") == 1, "{descriptors:?}");
}

#[tokio::test]
async fn limits_of_the_process_are_those_of_the_operator() {
    let loaded = Setup::isolated()
        .limits(|limits| {
            limits.plugin_worker_memory_bytes = 3 << 30;
            limits.plugin_worker_files = 77;
            limits.plugin_worker_cpu = std::time::Duration::from_secs(1234);
        })
        .load(PluginFolder::new().with_fixture(ID))
        .await;
    let limits = probe(&loaded, json!({ "what": "limits" })).await.unwrap();
    let limits = limits.as_str().unwrap();
    let both = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(both("Max address space"), ["3221225472", "3221225472"]);
    assert_eq!(both("Max open files"), ["77", "77"]);
    assert_eq!(both("Max cpu time"), ["1234", "1234"]);
    assert_eq!(both("Max core file size"), ["0", "0"]);
}

#[tokio::test]
async fn a_plugin_with_a_sandbox_of_its_own_is_not_fenced_in() {
    let outside = Outside::new();
    let permissions = PluginPermissions { exec: ExecPermission::Sandbox, ..PluginPermissions::default() };
    let loaded = confined(permissions).await;
    let confinement = loaded.entry(ID).provider.as_ref().unwrap().confinement().unwrap();
    assert!(confinement.own_sandbox && confinement.no_new_privileges, "{confinement:?}");
    assert!(confinement.landlock.is_none() && !confinement.seccomp, "{confinement:?}");
    assert!(confinement.to_string().contains("sandbox of its own"), "{confinement}");
    assert_eq!(probe(&loaded, json!({ "what": "read", "path": outside.path("secret") })).await.unwrap(), CANARY);
    // What a sandbox is made of: namespaces, and mounts in them.
    let script =
        "unshare --user --map-root-user --mount --pid --fork sh -c \"mount -t tmpfs none /tmp && echo mounted\"";
    let free = std::process::Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    if String::from_utf8_lossy(&free.stdout).trim() == "mounted" {
        let built = probe(&loaded, json!({ "what": "run", "path": "/bin/sh", "text": script })).await.unwrap();
        assert_eq!(built["out"], "mounted\n", "{built}");
    }
    assert_eq!(loaded.tool(ID, "echo").await.effect(&json!({})), Effect::ReadOnly, "it is believed as in our process");
    let limits = probe(&loaded, json!({ "what": "limits" })).await.unwrap();
    let memory =
        limits.as_str().unwrap().lines().find_map(|line| line.strip_prefix("Max address space")).unwrap().to_owned();
    assert!(memory.contains("unlimited"), "what the sandbox runs has limits of its own: {memory}");
}

#[tokio::test]
async fn what_is_in_force_and_what_is_missing_is_said() {
    watch_log();
    let permissions =
        PluginPermissions { read: vec!["/usr/share".into(), "/nowhere/at/all".into()], ..PluginPermissions::default() };
    let loaded = confined(permissions).await;
    let confinement = loaded.entry(ID).provider.as_ref().unwrap().confinement().unwrap();
    assert!(confinement.is_enforced(), "{confinement}");
    assert!(confinement.landlock.unwrap() >= 1 && confinement.seccomp && confinement.no_new_privileges);
    assert!(confinement.lacking.iter().any(|lacking| lacking.contains("/nowhere/at/all")), "{confinement}");
    let report = serde_json::to_value(&loaded.plugins.reports()[0]).unwrap();
    assert_eq!(report["confinement"]["permitted"]["read"], json!(["/nowhere/at/all", "/usr/share"]));
    let missing = report["missing_permissions"].as_array().unwrap();
    for asked in [
        "network example.com:443",
        "read / (only /usr/share, /nowhere/at/all)",
        "write /",
        "exec sandbox",
        "env GRANTED",
    ] {
        assert!(missing.contains(&json!(asked)), "{asked} is missing in {missing:?}");
    }
    assert!(!logged(&[ID, "Landlock", "seccomp", "read /usr/share"]).is_empty());
    assert!(!logged(&[ID, "asks for permissions that are not granted", "write /"]).is_empty());
}
