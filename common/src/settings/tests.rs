//! Settings as a user meets them: a command line and a file in, a struct or a complaint out.

use std::io::Write;

use clap::Subcommand;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "ak")]
struct Top {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Broker(BrokerFlags),
    Other,
}

#[derive(Debug, clap::Args)]
struct BrokerFlags {
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, env = "AKLIGHT_TEST_SETTINGS_PORT", default_value_t = 7000)]
    port: u16,
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    #[arg(long, default_value = "x")]
    brokers: String,
    #[arg(long)]
    pattern: Vec<String>,
    #[arg(long, env = "AKLIGHT_TEST_SETTINGS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[arg(long)]
    quiet: bool,
    #[arg(long, requires = "quiet")]
    hush: Option<String>,
}

fn with_file(content: &str, more: &[&str]) -> Result<BrokerFlags, String> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    file.write_all(content.as_bytes()).expect("written");
    let path = file.path().to_str().expect("a name").to_owned();
    let mut args = vec!["ak", "broker", "--config", &path];
    args.extend(more);
    match parse_from::<Top>(args) {
        Ok(Top { command: Sub::Broker(flags) }) => Ok(flags),
        Ok(other) => panic!("parsed as {other:?}"),
        Err(error) => {
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
            Err(error.to_string().replace(&path, "F"))
        }
    }
}

fn complains(content: &str, of: &[&str]) {
    let text = with_file(content, &[]).expect_err("a complaint");
    for part in of {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_file_counts_over_the_default_and_a_flag_over_the_file() {
    let flags = with_file("data_dir = '/d'\nport = 0x1b59\nquiet = true", &[]).expect("parsed");
    assert_eq!((flags.data_dir, flags.port, flags.quiet), (PathBuf::from("/d"), 7001, true));
    let flags = with_file("data-dir = '/d'\nport = 7001", &["--port", "7002"]).expect("parsed");
    assert_eq!((flags.port, flags.quiet, &*flags.brokers), (7002, false, "x"));
}

#[test]
fn a_variable_counts_over_the_file_and_under_a_flag() {
    // The environment of a process is one for all its tests: the check runs in another.
    let me = env::current_exe().expect("this test");
    let run = std::process::Command::new(me)
        .args(["--exact", "settings::tests::in_an_environment_with_a_port", "--ignored"])
        .env("AKLIGHT_TEST_SETTINGS_PORT", "7003")
        .output()
        .expect("ran");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by a_variable_counts_over_the_file_and_under_a_flag with its own environment"]
fn in_an_environment_with_a_port() {
    let file = "data-dir = '/d'\nport = 7001";
    assert_eq!(with_file(file, &[]).expect("parsed").port, 7003);
    assert_eq!(with_file(file, &["--port=7004"]).expect("parsed").port, 7004);
}

#[test]
fn an_array_is_a_list_however_the_flag_takes_it() {
    let file = "data-dir='/d'\npeers=['a','b']\nbrokers=['c:1','d:2']\npattern=['e,f','g']";
    let flags = with_file(file, &[]).expect("parsed");
    assert_eq!(flags.peers, ["a", "b"]);
    assert_eq!(flags.brokers, "c:1,d:2");
    assert_eq!(flags.pattern, ["e,f", "g"]);
}

#[test]
fn an_unknown_key_names_its_line_and_the_right_one() {
    complains("# settings\n\ndata_dri = '/d'", &["F:3:", "'data_dri'", "'data-dir'"]);
    complains("zzzzzzzz = 1", &["F:1:", "there are data-dir, port"]);
}

#[test]
fn all_mistakes_of_a_file_come_at_once() {
    complains(
        "prot = 1\nport = 'many'\nquiet = 3\n[peers]\na = 1",
        &[
            "F:1:",
            "'port'?",
            "F:2: port: invalid value 'many'",
            "F:3: quiet: this is true or false",
            "F:4: peers: this is a section",
        ],
    );
    complains("data-dir='/a'\ndata_dir='/b'", &["F:2:", "set twice"]);
}

#[test]
fn what_is_no_toml_names_its_line() {
    complains("port = 1\nport 2", &["F:2:", "no TOML"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = parse_from::<Top>(["ak", "other", "--config=/no/such.toml"]).expect_err("missing");
    assert!(error.to_string().contains("/no/such.toml cannot be read"), "{error}");
}

#[test]
fn a_value_is_tried_alone_whatever_its_flag_must_go_with() {
    let flags = with_file("data-dir='/d'\nhush='x'", &[]).expect("parsed");
    assert_eq!(flags.hush.as_deref(), Some("x"));
}

#[test]
fn help_shows_what_a_file_sets_but_no_secret() {
    let file = "data-dir='/d'\nport=7007\ntoken='hush-hush'";
    let mut config = tempfile::NamedTempFile::new().expect("a file");
    config.write_all(file.as_bytes()).expect("written");
    let path = config.path().to_str().expect("a name");
    let help = parse_from::<Top>(["ak", "broker", "--config", path, "--help"]).expect_err("help");
    let help = help.to_string();
    assert!(help.contains("[default: 7007]") && !help.contains("hush-hush"), "{help}");
    assert_eq!(with_file(file, &[]).expect("parsed").token.as_deref(), Some("hush-hush"));
}

#[test]
fn nearest_guesses_only_what_is_near() {
    assert_eq!(nearest("lisen", &["listen", "listen-http"]), Some("listen"));
    assert_eq!(nearest("colour", &["listen", "port"]), None);
}
