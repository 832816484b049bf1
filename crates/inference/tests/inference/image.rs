//! Decoding of frames.

use sightline_inference::RgbImage;

use crate::support::data;

#[test]
fn grey_jpegs_become_rgb() {
    let image = RgbImage::from_jpeg(&data("grey.jpg")).unwrap();
    assert_eq!((image.width(), image.height()), (64, 36));
    assert!(
        image
            .pixels()
            .chunks_exact(3)
            .all(|p| p[0] == p[1] && p[1] == p[2])
    );
}

#[test]
fn bad_frames_are_refused() {
    let street = data("street.jpg");
    let mut huge = street.clone();
    let sof = huge.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
    huge[sof + 5..sof + 9].fill(0xff);
    for (name, jpeg) in [
        ("empty", &[][..]),
        ("text", b"not a picture"),
        ("headless", &street[..100]),
        ("huge", &huge),
    ] {
        let error = RgbImage::from_jpeg(jpeg).expect_err(name);
        assert!(
            error.to_string().starts_with("cannot decode the frame"),
            "{name}: {error}"
        );
    }
}

#[test]
fn sizes_and_bytes_must_agree() {
    assert!(RgbImage::new(2, 3, vec![0; 18]).is_ok());
    for (width, height, bytes) in [(2, 3, 17), (0, 3, 0), (8193, 1, 8193 * 3), (2, 3, 24)] {
        assert!(
            RgbImage::new(width, height, vec![0; bytes]).is_err(),
            "{width}x{height}"
        );
    }
}
