//! What cameras hear while nobody speaks: noise, music and machines, the same in every run. 16 kHz mono.

use std::f64::consts::TAU;

const RATE: f64 = 16_000.0;
/// How loud they are: about as loud as a voice.
const LOUD: f64 = 0.35 * 32_767.0;

/// Each sound with its name, of so many samples.
pub fn all(samples: usize) -> Vec<(&'static str, Vec<i16>)> {
    let made = |sample: &mut dyn FnMut(f64) -> f64| -> Vec<i16> {
        let at = |i: usize| (sample(i as f64 / RATE).clamp(-1.0, 1.0) * LOUD) as i16;
        (0..samples).map(at).collect()
    };
    let (mut white, mut pink, mut slam, mut hats) = (Noise(1), Pink::default(), Noise(3), Noise(4));
    vec![
        ("silence", vec![0; samples]),
        ("white noise", made(&mut |_| white.next())),
        ("pink noise", made(&mut |_| pink.next())),
        (
            "slamming doors",
            made(&mut |t| slam.next() * 2.0 * fading(t, 1.7, 20.0)),
        ),
        (
            "chords",
            made(&mut |t| chord(t, |phase| (phase * TAU).sin())),
        ),
        ("organ", made(&mut |t| chord(t, |phase| 2.0 * phase - 1.0))),
        ("melody", made(&mut melody)),
        ("drums", made(&mut |t| drums(t, &mut hats))),
        ("hum", made(&mut |t| 2.0 * (t * 100.0).fract() - 1.0)),
        (
            "siren",
            made(&mut |t| (TAU * 800.0 * t + 600.0 * (t * 3.0).sin()).sin()),
        ),
    ]
}

/// Loud at the start of every period.
fn fading(t: f64, period: f64, speed: f64) -> f64 {
    (-(t % period) * speed).exp()
}

/// Four chords in turn, plucked.
fn chord(t: f64, wave: impl Fn(f64) -> f64) -> f64 {
    const CHORDS: [[f64; 3]; 4] = [
        [261.6, 329.6, 392.0],
        [220.0, 261.6, 329.6],
        [174.6, 220.0, 261.6],
        [196.0, 246.9, 293.7],
    ];
    let notes = CHORDS[(t / 0.75) as usize % CHORDS.len()];
    let sum: f64 = notes.iter().map(|note| wave((note * t).fract())).sum();
    sum / 3.0 * fading(t, 0.75, 3.0)
}

fn melody(t: f64) -> f64 {
    const NOTES: [f64; 8] = [262.0, 294.0, 330.0, 349.0, 392.0, 440.0, 494.0, 523.0];
    let note = NOTES[(t / 0.3) as usize % NOTES.len()];
    let overtones = (1..=5).map(|n| (TAU * note * f64::from(n) * t).sin() / f64::from(n));
    overtones.sum::<f64>() / 2.0 * fading(t, 0.3, 4.0)
}

fn drums(t: f64, hats: &mut Noise) -> f64 {
    let into = t % 0.25;
    if ((t / 0.25) as usize).is_multiple_of(2) {
        (TAU * (60.0 + 80.0 * (-into * 30.0).exp()) * into).sin() * fading(t, 0.25, 15.0)
    } else {
        hats.next() * fading(t, 0.25, 30.0)
    }
}

/// White noise in -1..1, by xorshift.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        // Not 0 for any of the seeds.
        let mut x = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0 = x;
        (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// Pink noise by Paul Kellet's filter.
#[derive(Default)]
struct Pink {
    noise: Noise,
    held: [f64; 3],
}

impl Default for Noise {
    fn default() -> Self {
        Self(2)
    }
}

impl Pink {
    fn next(&mut self) -> f64 {
        let white = self.noise.next();
        let [a, b, c] = &mut self.held;
        *a = 0.997_65 * *a + white * 0.099_046;
        *b = 0.963 * *b + white * 0.296_516_4;
        *c = 0.57 * *c + white * 1.052_691_3;
        (*a + *b + *c + white * 0.184_8) * 0.3
    }
}
