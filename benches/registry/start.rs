//! From the store, and from the saved map, to a table.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use keyway::registry::store::Store;
use keyway::registry::writer::{Start, Update};
use keyway::registry::{Document, Key, Limits, Model, Service, routes};
use keyway::route::{Contents, Delta, Snapshot, Table, saved_routes};
use keyway::ssh::entropy::SystemEntropy;

use crate::made::open;
use crate::{SAVED, STORE, VMS, cpu_ms, resident_kb, status_kb};

const STARTS: usize = 3;
const PREFIXES: [&str; 6] = ["address/", "user/", "team/", "vm/", "hold/", "token/"];

/// What each step of a start costs by itself, one behind another.
pub(crate) fn split(path: &Path) {
    let mut began = Instant::now();
    let mut lap = |what: &str| {
        println!("{what:<44} {:>6} ms", began.elapsed().as_millis());
        began = Instant::now();
    };
    let (store, _) = open(path);
    lap("opened, pages checked");
    let each = |visit: &mut dyn FnMut(Key, &[u8], u64)| {
        for prefix in PREFIXES {
            let seen = store.snapshot_each(prefix, &mut |entry| {
                visit(entry.key.parse().unwrap(), entry.value, entry.modified.0);
            });
            seen.unwrap();
        }
    };
    let mut bytes = 0;
    each(&mut |_, value, _| bytes += value.len());
    lap("all documents read from SQLite");
    each(&mut |key, value, _| drop(Document::from_json(&key, value).unwrap()));
    lap("read again, and their JSON");
    let mut documents = Vec::new();
    each(&mut |key, value, at| {
        documents.push((Document::from_json(&key, value).unwrap(), key, at));
    });
    lap("once more, and kept");
    let resident = resident_kb();
    let mut model = Model::new(Limits::default());
    for (document, key, at) in documents {
        model.put(&key, Some(document), at);
    }
    lap("put into a model one by one");
    println!("{:<44} {:>6} MB", "indexes of the model", (resident_kb() - resident) >> 10);
    let contents = model.contents();
    lap("its contents for the routing map");
    let encoded: usize = saved_routes::encode(head(1), &contents).map(|piece| piece.len()).sum();
    lap("encoded");
    let snapshot = Snapshot::new(contents).unwrap();
    lap("checked as a snapshot");
    let table = Table::new();
    table.apply(snapshot);
    lap("applied to a table");
    drop(model);
    lap("(the model dropped)");
    println!("documents {} MB, saved map {} MB", bytes >> 20, encoded >> 20);
}

fn head(revision: u64) -> saved_routes::Head {
    saved_routes::Head { store: [7; 16], program: [0; 8], revision }
}

/// Keeps a table up with a service, as `serve` does for its edge.
struct Feed {
    table: Arc<Table>,
    dir: PathBuf,
    journal: Option<File>,
    applied: Arc<Mutex<Option<Duration>>>,
    began: Instant,
}

impl Feed {
    fn follow(&mut self, news: Update<'_>) {
        match news {
            Update::Everything { revision, contents, .. } => {
                let loaded = self.began.elapsed();
                self.save(&contents, revision);
                let saved = self.began.elapsed();
                let snapshot = Snapshot::new(contents).unwrap();
                let checked = self.began.elapsed();
                self.table.apply(snapshot);
                let applied = self.began.elapsed();
                let ms = |from: Duration, to: Duration| to.saturating_sub(from).as_millis();
                println!(
                    "  read {} ms, save {}, check {}, apply {}",
                    loaded.as_millis(),
                    ms(loaded, saved),
                    ms(saved, checked),
                    ms(checked, applied)
                );
                *self.applied.lock().unwrap() = Some(applied);
            }
            Update::Written { model, written } => {
                let delta = routes::delta(written);
                self.append(&delta, model.revision());
                self.table.change(delta).unwrap();
            }
        }
    }

    fn save(&mut self, contents: &Contents, revision: u64) {
        let path = self.dir.join(SAVED);
        let mut file = File::create(&path).unwrap();
        for piece in saved_routes::encode(head(revision), contents) {
            file.write_all(&piece).unwrap();
        }
        file.sync_all().unwrap();
        self.journal = Some(File::create(self.dir.join("bench.journal")).unwrap());
    }

    fn append(&mut self, delta: &Delta, revision: u64) {
        let bytes = saved_routes::encode_delta(head(revision), revision - 1, delta);
        self.journal.as_mut().unwrap().write_all(&bytes).unwrap();
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// From nothing to a filled table and a service that takes orders.
pub(crate) fn started(dir: &Path) -> (Service, Arc<Table>, Duration) {
    let (began, cpu) = (Instant::now(), cpu_ms());
    let (store, _) = open(&dir.join(STORE));
    println!("  opened {} ms", began.elapsed().as_millis());
    let table = Arc::new(Table::new());
    let applied = Arc::new(Mutex::new(None));
    let mut feed = Feed {
        table: Arc::clone(&table),
        dir: dir.to_owned(),
        journal: None,
        applied: Arc::clone(&applied),
        began,
    };
    let service = Service::start(Start {
        store: Arc::new(store),
        limits: Limits::default(),
        now_s,
        entropy: Box::new(SystemEntropy::default()),
        known: None,
        follow: Box::new(move |news| feed.follow(news)),
    });
    let service = service.unwrap();
    println!("  in service after {} ms, {} ms of CPU", began.elapsed().as_millis(), cpu_ms() - cpu);
    let applied = applied.lock().unwrap().unwrap();
    (service, table, applied)
}

pub(crate) fn from_store(dir: &Path) {
    for run in 0..STARTS {
        let (service, table, applied) = started(dir);
        let counts = table.counts();
        assert_eq!(counts.vms, usize::try_from(VMS).unwrap());
        println!("start from the store: {} ms to the filled table", applied.as_millis());
        if run > 0 {
            continue;
        }
        // What is freed goes back to the system only some time later.
        std::thread::sleep(Duration::from_secs(2));
        let both = resident_kb();
        drop(service);
        std::thread::sleep(Duration::from_secs(2));
        let table_alone = resident_kb();
        drop(table);
        let each = |kb: u64| kb * 1024 / VMS;
        println!(
            "resident: {} MB; {} bytes a VM of the model, {} of the table and the rest",
            both >> 10,
            each(both.saturating_sub(table_alone)),
            each(table_alone)
        );
    }
    println!("resident at most: {} MB", status_kb("VmHWM:") >> 10);
}

pub(crate) fn from_saved(path: &Path) {
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut decoder = saved_routes::Decoder::default();
        let mut file = File::open(path).unwrap();
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            decoder.take(&piece[..count]).unwrap();
        }
        let (_, contents) = decoder.finish().unwrap();
        let read = began.elapsed();
        let snapshot = Snapshot::new(contents).unwrap();
        let checked = began.elapsed();
        let table = Table::new();
        table.apply(snapshot);
        println!(
            "start from the saved map: {} ms (read and decode {}, check {}, apply {})",
            began.elapsed().as_millis(),
            read.as_millis(),
            checked.saturating_sub(read).as_millis(),
            began.elapsed().saturating_sub(checked).as_millis()
        );
        assert_eq!(table.counts().vms, usize::try_from(VMS).unwrap());
    }
    println!("resident at most: {} MB", status_kb("VmHWM:") >> 10);
}
