//! Whatever is written, zeroed, noted and killed in any order: the image is what a plain list of bytes would be.

use super::*;
use proptest::prelude::*;

const PAGES: u64 = LENGTH / 512;

#[derive(Clone, Debug)]
enum Act {
    Write(PageRange, u8),
    Zero(PageRange),
    Note,
    /// Ends without finishing, as a kill does, and opens again.
    Kill,
}

fn ranges() -> impl Strategy<Value = PageRange> {
    // Often at the end, where the footer is.
    (prop_oneof![0..PAGES, PAGES - 20..PAGES], prop_oneof![1_u64..16, 1..PAGES])
        .prop_map(|(start, pages)| range(start * 512, (start + pages).min(PAGES) * 512))
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (ranges(), 1_u8..).prop_map(|(range, seed)| Act::Write(range, seed)),
        3 => ranges().prop_map(Act::Zero),
        1 => Just(Act::Note),
        1 => Just(Act::Kill),
    ];
    prop::collection::vec(act, 1..24)
}

/// Bytes that differ from place to place, in frames as a socket gives them.
fn frames(range: PageRange, seed: u8) -> Vec<Bytes> {
    let bytes: Bytes = (range.start()..range.end())
        .map(|at| u8::try_from((at / 7 + at / 512) % 255).unwrap().wrapping_add(seed))
        .collect();
    let length = 1000 * usize::from(seed) + 1;
    (0..bytes.len()).step_by(length).map(|at| bytes.slice(at..(at + length).min(bytes.len()))).collect()
}

fn part(image: &mut [u8], range: PageRange) -> &mut [u8] {
    &mut image[usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap()]
}

async fn play(format: Format, options: WriterOptions, acts: Vec<Act>) {
    let is_in_place = options.in_place;
    let place = place(if format == Format::Vhd { "disk.vhd" } else { "disk.raw" });
    let mut model = vec![0_u8; usize::try_from(LENGTH).unwrap()];
    let stored = if format == Format::Vhd { model.len() } else { model.len() - 512 };
    if is_in_place {
        model[..1 << 20].fill(0xee);
        fs::write(&place.path, &model[..stored]).unwrap();
    }
    let (mut writer, _) = place.open(options.clone()).await.unwrap();
    let (mut noted, mut count) = (Resumed::Fresh, 0);
    let footer = range(DISK, LENGTH);
    let mut noted_footer = vec![0; 512];
    for act in acts {
        match act {
            Act::Write(range, seed) => {
                let frames = frames(range, seed);
                part(&mut model, range).copy_from_slice(&frames.concat());
                writer.write(range, &frames).await.unwrap();
            }
            Act::Zero(range) => {
                part(&mut model, range).fill(0);
                writer.zero(range).await.unwrap();
            }
            Act::Note => {
                count += 1;
                writer.note(&count.to_string()).await.unwrap();
                noted = Resumed::At(count.to_string());
                noted_footer = part(&mut model, footer).to_vec();
            }
            Act::Kill => {
                drop(writer);
                let (again, resumed) = place.open(options.clone()).await.unwrap();
                assert_eq!(resumed, noted);
                if noted == Resumed::Fresh && !is_in_place {
                    model.fill(0);
                }
                if format == Format::Raw {
                    part(&mut model, footer).copy_from_slice(&noted_footer);
                }
                writer = again;
            }
        }
        assert!(bytes(&writer, whole()).await == model);
    }
    writer.finish().await.unwrap();
    assert!(fs::read(&place.path).unwrap() == model[..stored]);
    assert_eq!(place.names().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn an_image_is_what_was_written_to_it(acts in acts(), raw: bool, in_place: bool) {
        let format = if raw { Format::Raw } else { Format::Vhd };
        let options = WriterOptions { in_place, ..WriterOptions::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(format, options, acts));
    }
}

/// Many tasks write neighbouring ranges, of which some share a page of the page cache, while others note.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_write_at_once() {
    let place = place("disk.raw");
    let (writer, _) = place.open(fresh()).await.unwrap();
    let writer = Arc::new(writer);
    let mut tasks = tokio::task::JoinSet::new();
    let mut model = vec![0; usize::try_from(LENGTH).unwrap()];
    for number in 0..PAGES / 3 {
        let here = range(number * 3 * 512, (number * 3 + 3) * 512);
        let seed = u8::try_from(number % 200).unwrap() + 1;
        if !number.is_multiple_of(5) {
            part(&mut model, here).copy_from_slice(&frames(here, seed).concat());
        }
        let writer = Arc::clone(&writer);
        tasks.spawn(async move {
            if number.is_multiple_of(5) {
                writer.zero(here).await.unwrap();
            } else {
                writer.write(here, &frames(here, seed)).await.unwrap();
            }
            if number.is_multiple_of(100) {
                writer.note("some").await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert!(bytes(&writer, whole()).await == model);
    Arc::into_inner(writer).unwrap().finish().await.unwrap();
    assert!(fs::read(&place.path).unwrap() == model[..1 << 20]);
}

/// Whoever opens, writes and finishes while others do: the final name always leads to a whole image of one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_restores_to_one_name_are_never_mixed() {
    let place = Arc::new(place("disk.vhd"));
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 1..=4 {
        let place = Arc::clone(&place);
        tasks.spawn(async move {
            let mut finished = 0;
            while finished < 20 {
                match place.open(overwrite()).await {
                    Ok((writer, _)) => {
                        writer.write(whole(), &filled(seed, whole())).await.unwrap();
                        writer.finish().await.unwrap();
                        finished += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseHeld),
                }
                if let Ok(content) = fs::read(&place.path) {
                    assert_eq!(content.len() as u64, LENGTH);
                    assert!(content.iter().all(|byte| *byte == content[0] && *byte != 0));
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(place.names(), ["disk.vhd"]);
}
