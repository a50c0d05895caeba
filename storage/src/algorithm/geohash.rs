//! Points on the earth as scores of a sorted set (interleaved bits that keep near points near), and the search for
//! points in an area.
//!
//! A point becomes a number of 52 bits, which a score holds exactly. Longitude and latitude are each cut into 2²⁶ steps;
//! their bits take turns, the longitude's in the higher place of each pair:
//!
//! ```text
//! bit  51 50 49 48 ...  1  0
//!      x  y  x  y  ...  x  y      x: longitude, from -180° to 180°;  y: latitude, from -85.05112878° to 85.05112878°
//! ```
//! So all points of a *cell* (a rectangle whose sides halve with each *step*) have scores in one range, and the
//! points of an area are found in the ranges of a few cells that cover it. Limits, radius of the earth and the choice
//! of cells are those of Redis: equal points have equal scores there, and results have the same order.
//!
//! Distances are those on a sphere (haversine), in metres.

use std::f64::consts::PI;
use std::ops::Range;

/// The highest longitude, in degrees; the lowest is its negative.
pub const LONGITUDE_MAX: f64 = 180.0;
/// The highest latitude, in degrees; the lowest is its negative. Beyond lie the poles, where a square map would have to be
/// infinite.
pub const LATITUDE_MAX: f64 = 85.051_128_78;

/// The radius of the earth in metres.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half the length of the equator on the map, in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;

/// Bits of each coordinate in a score.
const STEP_MAX: u32 = 26;

/// A point, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
}

impl Point {
    /// A point within the limits; `None` beyond them.
    #[must_use]
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let known = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        known.then_some(Self { longitude, latitude })
    }

    /// The score of the point. The point must be within the limits.
    #[must_use]
    pub fn score(self) -> u64 {
        Cell::of(self, STEP_MAX).bits()
    }

    /// The middle of the smallest cell with this score: what a score remembers of its point. Whatever the score, the point
    /// is within the limits.
    #[must_use]
    pub fn of_score(score: f64) -> Self {
        let (y, x) = deinterleave(score_bits(score));
        let cell = Cell { x, y, step: STEP_MAX };
        cell.bounds().middle()
    }

    /// The standard geohash text: eleven digits in base 32, of which the last is always 0, as Redis has it.
    #[must_use]
    pub fn text(self) -> [u8; 11] {
        const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        // The standard knows latitudes up to 90°.
        let y = cut(self.latitude, 90.0, STEP_MAX);
        let x = cut(self.longitude, LONGITUDE_MAX, STEP_MAX);
        let bits = interleave(y, x);
        let mut text = [DIGITS[0]; 11];
        for (place, digit) in text[..10].iter_mut().enumerate() {
            *digit = DIGITS[(bits >> (47 - 5 * place) & 0x1f) as usize];
        }
        text
    }

    /// The distance to another point, in metres.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        let v = ((radians(other.longitude) - radians(self.longitude)) / 2.0).sin();
        // Without a difference in longitude there is nothing to be projected.
        if v == 0.0 {
            return self.latitude_distance(other);
        }
        let (own, others) = (radians(self.latitude), radians(other.latitude));
        let u = ((others - own) / 2.0).sin();
        // Between antipodes rounding may lead a little beyond 1.
        let sine = (u * u + own.cos() * others.cos() * v * v).sqrt().min(1.0);
        2.0 * EARTH_RADIUS * sine.asin()
    }

    /// The distance to the latitude of another point, in metres.
    fn latitude_distance(self, other: Self) -> f64 {
        EARTH_RADIUS * (radians(other.latitude) - radians(self.latitude)).abs()
    }
}

fn radians(degrees: f64) -> f64 {
    degrees * (PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (PI / 180.0)
}

/// The integer in a score. Scores set by ZADD may be any number, and still mean some point.
fn score_bits(score: f64) -> u64 {
    /// 2⁶³
    const HIGH: f64 = 9_223_372_036_854_775_808.0;
    if score < HIGH {
        score as i64 as u64
    } else if score < 2.0 * HIGH {
        score as u64
    } else {
        // Common processors convert a number that fits no integer to 0.
        0
    }
}

/// Index of the part that a coordinate is in, of 2^step parts of the range from `-max` to `max`.
fn cut(coordinate: f64, max: f64, step: u32) -> u32 {
    let place = (coordinate + max) / (max + max);
    (place * (1_u64 << step) as f64) as u32
}

/// Spreads the bits of a number to the even places.
fn spread(number: u32) -> u64 {
    let mut bits = u64::from(number);
    for (shift, mask) in SPREADS {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Gathers the bits of the even places.
fn gather(bits: u64) -> u32 {
    let mut bits = bits & 0x5555_5555_5555_5555;
    for (place, (shift, _)) in SPREADS.into_iter().enumerate().rev() {
        let mask = place
            .checked_sub(1)
            .map_or(0xffff_ffff, |before| SPREADS[before].1);
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

/// Shifts that move half of the bits apart, and which bits are then of interest.
const SPREADS: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, 0x5555_5555_5555_5555),
];

fn interleave(even: u32, odd: u32) -> u64 {
    spread(even) | spread(odd) << 1
}

fn deinterleave(bits: u64) -> (u32, u32) {
    (gather(bits), gather(bits >> 1))
}

/// One of 2^step × 2^step rectangles of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    /// Column, from west to east; 2^step for points on the last meridian.
    x: u32,
    /// Row, from south to north; 2^step for points on the last parallel.
    y: u32,
    step: u32,
}

impl Cell {
    /// The cell that a point is in.
    fn of(point: Point, step: u32) -> Self {
        Self {
            x: cut(point.longitude, LONGITUDE_MAX, step),
            y: cut(point.latitude, LATITUDE_MAX, step),
            step,
        }
    }

    fn bits(self) -> u64 {
        interleave(self.y, self.x)
    }

    /// The scores of the points in it.
    fn scores(self) -> Range<f64> {
        let shift = 2 * (STEP_MAX - self.step);
        let bits = self.bits();
        (bits << shift) as f64..((bits + 1) << shift) as f64
    }

    /// The cell `east` columns and `north` rows away; the map has no edges. Points on the last meridian or parallel
    /// are in cells beyond the map, which only a step can leave.
    fn neighbour(self, east: i32, north: i32) -> Self {
        let mask = (1_u32 << self.step) - 1;
        let step = |place: u32, by: i32| match by {
            0 => place,
            _ => place.wrapping_add_signed(by) & mask,
        };
        Self {
            x: step(self.x, east),
            y: step(self.y, north),
            ..self
        }
    }

    fn bounds(self) -> Bounds {
        let parts = (1_u64 << self.step) as f64;
        let edge = |place: u64, max: f64| -max + place as f64 / parts * (max + max);
        let (x, y) = (u64::from(self.x), u64::from(self.y));
        Bounds {
            west: edge(x, LONGITUDE_MAX),
            east: edge(x + 1, LONGITUDE_MAX),
            south: edge(y, LATITUDE_MAX),
            north: edge(y + 1, LATITUDE_MAX),
        }
    }
}

/// A rectangle of the map, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bounds {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

impl Bounds {
    fn middle(self) -> Point {
        let middle = |low: f64, high: f64, max: f64| f64::midpoint(low, high).clamp(-max, max);
        Point {
            longitude: middle(self.west, self.east, LONGITUDE_MAX),
            latitude: middle(self.south, self.north, LATITUDE_MAX),
        }
    }

    /// The bounding box of a rectangle of this size in metres around a point.
    fn around(center: Point, width: f64, height: f64) -> Self {
        let north = degrees(height / 2.0 / EARTH_RADIUS);
        // The side nearer to a pole spans more degrees.
        let nearer = if center.latitude < 0.0 {
            center.latitude - north
        } else {
            center.latitude + north
        };
        let east = degrees(width / 2.0 / EARTH_RADIUS / radians(nearer).cos());
        Self {
            west: center.longitude - east,
            east: center.longitude + east,
            south: center.latitude - north,
            north: center.latitude + north,
        }
    }
}

/// Area to search.
#[derive(Clone, Debug, PartialEq)]
pub enum Area {
    /// All points within a distance.
    Circle {
        /// From this point.
        center: Point,
        /// In metres; not negative.
        radius: f64,
    },
    /// A rectangle whose sides run along the compass.
    Rectangle {
        /// The centre.
        center: Point,
        /// From west to east, in metres; not negative.
        width: f64,
        /// From south to north, in metres; not negative.
        height: f64,
    },
    /// Between straight lines on the map.
    Polygon(Polygon),
}

impl Area {
    /// Distance of a point from the centre of the area, metres; `None` if it is outside.
    #[must_use]
    pub fn find(&self, point: Point) -> Option<f64> {
        match self {
            Self::Circle { center, radius } => Some(center.distance(point)).filter(|far| far <= radius),
            Self::Rectangle {
                center,
                width,
                height,
            } => {
                let on_same_latitude = Point {
                    longitude: center.longitude,
                    ..point
                };
                let inside = point.latitude_distance(*center) <= height / 2.0
                    && point.distance(on_same_latitude) <= width / 2.0;
                inside.then(|| center.distance(point))
            }
            Self::Polygon(polygon) => polygon.contains(point).then(|| polygon.center.distance(point)),
        }
    }

    /// Ranges of scores among which all points of the area are, and some others: nine at most, none twice.
    pub fn ranges(&self) -> impl Iterator<Item = Range<f64>> + use<> {
        let cells = match self {
            Self::Circle { center, radius } => cells_around(*center, 2.0 * radius, 2.0 * radius, *radius),
            Self::Rectangle {
                center,
                width,
                height,
            } => {
                let (width, height) = (*width, *height);
                let diagonal = (width / 2.0 * (width / 2.0) + height / 2.0 * (height / 2.0)).sqrt();
                cells_around(*center, width, height, diagonal)
            }
            Self::Polygon(polygon) => polygon.cells(),
        };
        cells.into_iter().flatten().map(Cell::scores)
    }
}

/// A cell and its neighbours, without those that are not needed.
type Cells = [Option<Cell>; 9];

/// Neighbours of a cell, to the east and to the north, in the order in which Redis looks at them.
const NEIGHBOURS: [(i32, i32); 9] = [
    (0, 0),
    (0, 1),
    (0, -1),
    (1, 0),
    (-1, 0),
    (1, 1),
    (-1, 1),
    (1, -1),
    (-1, -1),
];

/// The cells that cover a rectangle of this size around a point, whose corners are `radius` away.
fn cells_around(center: Point, width: f64, height: f64, radius: f64) -> Cells {
    let bounds = Bounds::around(center, width, height);
    let mut cell = Cell::of(center, step_for(radius, center.latitude));
    if cell.step > 1 && !neighbours_reach(cell, bounds) {
        cell = Cell::of(center, cell.step - 1);
    }
    let own = cell.bounds();
    let is_needed = |(east, north): (i32, i32)| {
        // With one step there are four cells in all, and every one may be a neighbour on either side.
        cell.step < 2
            || !((north < 0 && own.south < bounds.south)
                || (north > 0 && own.north > bounds.north)
                || (east < 0 && own.west < bounds.west)
                || (east > 0 && own.east > bounds.east))
    };
    let mut last = None;
    NEIGHBOURS.map(|direction| {
        let neighbour = cell.neighbour(direction.0, direction.1);
        // Cells that are so large that they meet again behind the map come twice in a row.
        if !is_needed(direction) || last == Some(neighbour) {
            return None;
        }
        if direction != (0, 0) {
            last = Some(neighbour);
        }
        Some(neighbour)
    })
}

/// Whether a cell and its neighbours reach as far as the bounds in each direction.
fn neighbours_reach(cell: Cell, bounds: Bounds) -> bool {
    let beyond = |east, north| cell.neighbour(east, north).bounds();
    beyond(0, 1).north >= bounds.north
        && beyond(0, -1).south <= bounds.south
        && beyond(1, 0).east >= bounds.east
        && beyond(-1, 0).west <= bounds.west
}

/// Number of cuts of the map after which a cell and its neighbours are likely to cover a radius in metres.
fn step_for(radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return STEP_MAX;
    }
    let mut step = 1;
    let mut reach = radius;
    while reach < MERCATOR_MAX {
        reach *= 2.0;
        step += 1;
    }
    step -= 2;
    // Towards the poles a degree of longitude is short.
    if latitude.abs() > 66.0 {
        step -= 1;
        if latitude.abs() > 80.0 {
            step -= 1;
        }
    }
    step.clamp(1, STEP_MAX as i32) as u32
}

/// Points that straight lines on the map join, the last one with the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Polygon {
    vertices: Vec<Point>,
    center: Point,
    bounds: Bounds,
}

impl Polygon {
    /// A polygon of three or more vertices, none beyond the limits; `None` if there are fewer. Lines may cross: a
    /// point surrounded by an odd number of lines is inside.
    #[must_use]
    pub fn new(vertices: Vec<Point>) -> Option<Self> {
        if vertices.len() < 3 {
            return None;
        }
        let mut bounds = Bounds {
            west: LONGITUDE_MAX,
            east: -LONGITUDE_MAX,
            south: LATITUDE_MAX,
            north: -LATITUDE_MAX,
        };
        for vertex in &vertices {
            bounds.west = bounds.west.min(vertex.longitude);
            bounds.east = bounds.east.max(vertex.longitude);
            bounds.south = bounds.south.min(vertex.latitude);
            bounds.north = bounds.north.max(vertex.latitude);
        }
        Some(Self {
            center: mean(&vertices),
            vertices,
            bounds,
        })
    }

    /// The mean of its vertices on the sphere: distances are measured from there.
    #[must_use]
    pub fn center(&self) -> Point {
        self.center
    }

    /// Whether a point is inside: whether a line to the west of it crosses an odd number of sides. O(vertices).
    fn contains(&self, point: Point) -> bool {
        let Point { longitude, latitude } = point;
        let bounds = &self.bounds;
        if latitude < bounds.south
            || latitude > bounds.north
            || longitude < bounds.west
            || longitude > bounds.east
        {
            return false;
        }
        let mut inside = false;
        let mut from = self.vertices[self.vertices.len() - 1];
        for &to in &self.vertices {
            if (from.latitude > latitude) != (to.latitude > latitude) {
                let share = (latitude - from.latitude) / (to.latitude - from.latitude);
                let crossing = from.longitude + share * (to.longitude - from.longitude);
                inside ^= crossing <= longitude;
            }
            from = to;
        }
        inside
    }

    /// The smallest cells of which nine or fewer cover it.
    fn cells(&self) -> Cells {
        let corner = |longitude, latitude| Point { longitude, latitude };
        let mut low = Cell::of(corner(self.bounds.west, self.bounds.south), STEP_MAX);
        let mut high = Cell::of(corner(self.bounds.east, self.bounds.north), STEP_MAX);
        while high.x - low.x > 2 || high.y - low.y > 2 {
            for cell in [&mut low, &mut high] {
                *cell = Cell {
                    x: cell.x / 2,
                    y: cell.y / 2,
                    step: cell.step - 1,
                };
            }
        }
        let mut cells = [None; 9];
        let covering = (low.y..=high.y).flat_map(|y| (low.x..=high.x).map(move |x| Cell { x, y, ..low }));
        for (place, cell) in cells.iter_mut().zip(covering) {
            *place = Some(cell);
        }
        cells
    }
}

/// The direction from the middle of the earth that is the mean of those to these points.
fn mean(points: &[Point]) -> Point {
    let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
    for point in points {
        let (longitude, latitude) = (radians(point.longitude), radians(point.latitude));
        x += latitude.cos() * longitude.cos();
        y += latitude.cos() * longitude.sin();
        z += latitude.sin();
    }
    Point {
        longitude: degrees(y.atan2(x)),
        latitude: degrees(z.atan2(x.hypot(y))),
    }
}

/// Room for any text of [`degrees_text`].
pub const DEGREES_TEXT_MAX: usize = 24;

/// A coordinate within the limits in at most 17 decimals, as GEOPOS shows it: the nearest such number, without
/// trailing zeros.
pub fn degrees_text(degrees: f64, text: &mut [u8; DEGREES_TEXT_MAX]) -> &str {
    const DECIMALS: usize = 17;
    const ONE: u128 = 10_u128.pow(DECIMALS as u32);
    // A number of at most 180 is an integer of 53 bits over a power of two, so all of this is exact in 128 bits.
    let bits = degrees.to_bits();
    let exponent = (bits >> 52 & 0x7ff).max(1) as u32;
    let hidden = u64::from(bits >> 52 & 0x7ff != 0) << 52;
    let product = u128::from(bits & ((1 << 52) - 1) | hidden) * ONE;
    let number = 1075_u32
        .checked_sub(exponent)
        .map_or(0, |shift| shift_rounded(product, shift));
    let mut digits = [0; 40];
    let mut at = digits.len();
    let mut rest = number;
    // At least one digit before the point.
    while rest > 0 || at > digits.len() - DECIMALS - 1 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let (whole, decimals) = digits[at..].split_at(digits.len() - DECIMALS - at);
    let decimals = &decimals[..decimals
        .iter()
        .rposition(|&digit| digit != b'0')
        .map_or(0, |last| last + 1)];
    let sign: &[u8] = if degrees < 0.0 && number > 0 { b"-" } else { b"" };
    let point: &[u8] = if decimals.is_empty() { b"" } else { b"." };
    let mut len = 0;
    for part in [sign, whole, point, decimals] {
        let part = &part[..part.len().min(text.len() - len)];
        text[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    std::str::from_utf8(&text[..len]).unwrap_or_default()
}

/// A number divided by a power of two and rounded to the nearest integer, to the even one of two.
fn shift_rounded(number: u128, shift: u32) -> u128 {
    if shift == 0 {
        return number;
    }
    let Some(whole) = number.checked_shr(shift) else {
        return 0;
    };
    let (rest, half) = (number & ((1 << shift) - 1), 1 << (shift - 1));
    whole + u128::from(rest > half || (rest == half && whole & 1 == 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point(longitude: f64, latitude: f64) -> Point {
        Point::new(longitude, latitude).unwrap()
    }

    #[test]
    fn scores_texts_and_distances_are_the_known_ones() {
        let (palermo, catania) = (point(13.361_389, 38.115_556), point(15.087_269, 37.502_669));
        assert_eq!(palermo.score(), 3_479_099_956_230_698);
        assert_eq!(catania.score(), 3_479_447_370_796_909);
        let [palermo, catania] = [palermo, catania].map(|point| Point::of_score(point.score() as f64));
        assert_eq!(&palermo.text(), b"sqc8b49rny0");
        assert_eq!(&catania.text(), b"sqdtr74hyu0");
        assert_eq!(format!("{:.4}", palermo.distance(catania)), "166274.1516");
        assert_eq!(format!("{:.17}", palermo.longitude), "13.36138933897018433");
        assert_eq!(palermo.distance(palermo), 0.0);
    }

    #[test]
    fn points_beyond_the_limits_are_none() {
        for (longitude, latitude, known) in [
            (180.0, 85.051_128_78, true),
            (-180.0, -85.051_128_78, true),
            (180.1, 0.0, false),
            (0.0, 85.06, false),
            (f64::NAN, 0.0, false),
            (0.0, f64::NEG_INFINITY, false),
        ] {
            assert_eq!(
                Point::new(longitude, latitude).is_some(),
                known,
                "{longitude} {latitude}"
            );
        }
    }

    #[test]
    fn any_score_means_a_point() {
        for score in [
            0.0,
            -1.0,
            1.5,
            f64::MAX,
            f64::MIN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e19,
            -1e300,
        ] {
            let Point { longitude, latitude } = Point::of_score(score);
            assert!(Point::new(longitude, latitude).is_some(), "{score}");
        }
    }

    #[test]
    fn absurd_areas_are_searched_all_the_same() {
        for size in [0.0, 1e-300, 1e300, f64::INFINITY] {
            for center in [point(0.0, 0.0), point(180.0, LATITUDE_MAX), point(-180.0, -85.0)] {
                for area in [
                    Area::Circle { center, radius: size },
                    Area::Rectangle {
                        center,
                        width: size,
                        height: 1.0,
                    },
                ] {
                    assert!(area.ranges().count() > 0, "{area:?}");
                    let _ = area.find(point(1.0, 1.0));
                }
            }
        }
    }

    #[test]
    fn a_polygon_with_a_dent() {
        let corners = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (2.0, 1.0), (0.0, 4.0)];
        let polygon = Polygon::new(corners.map(|(x, y)| point(x, y)).to_vec()).unwrap();
        for (x, y, inside) in [
            (1.0, 1.0, true),
            (3.5, 3.0, true),
            (2.0, 0.5, true),
            (2.0, 2.0, false),
            (5.0, 1.0, false),
            (-1.0, 1.0, false),
        ] {
            assert_eq!(polygon.contains(point(x, y)), inside, "{x} {y}");
        }
        assert!(Polygon::new(vec![point(0.0, 0.0), point(1.0, 1.0)]).is_none());
    }

    fn any_point(latitude_max: f64) -> impl Strategy<Value = Point> {
        (-180.0..=180.0, -latitude_max..=latitude_max).prop_map(|(x, y)| point(x, y))
    }

    /// Points around one, near and far.
    fn points_near(center: Point, degrees: f64) -> impl Strategy<Value = Vec<Point>> {
        let near = move |(x, y): (f64, f64)| {
            Point::new(center.longitude + x * degrees, center.latitude + y * degrees)
        };
        proptest::collection::vec((-1.0..1.0, -1.0..1.0).prop_map(near), 1..60)
            .prop_map(|points| points.into_iter().flatten().collect())
    }

    /// Checks that the search by ranges finds exactly the points in the area.
    fn check(area: &Area, points: &[Point]) -> Result<(), TestCaseError> {
        let ranges: Vec<_> = area.ranges().collect();
        for &given in points {
            let score = given.score() as f64;
            let holding = ranges.iter().filter(|range| range.contains(&score)).count();
            prop_assert!(holding <= 1, "{given:?} would be found twice in {area:?}");
            if area.find(Point::of_score(score)).is_some() {
                prop_assert_eq!(holding, 1, "{:?} would not be found in {:?}", given, area);
            }
        }
        Ok(())
    }

    #[test]
    fn degrees_are_written_in_full() {
        for (degrees, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (180.0, "180"),
            (-180.0, "-180"),
            (0.5, "0.5"),
            (-85.051_128_78, "-85.0511287799999991"),
            (13.361_389_338_970_184, "13.36138933897018433"),
            (1e-17, "0.00000000000000001"),
            (4e-18, "0"),
            (5e-324, "0"),
        ] {
            assert_eq!(degrees_text(degrees, &mut [0; DEGREES_TEXT_MAX]), text);
        }
    }

    #[test]
    fn the_middle_of_a_polygon_is_that_on_the_sphere() {
        let corners = [(0.0, 60.0), (90.0, 60.0), (180.0, 60.0), (-90.0, 60.0)];
        let polygon = Polygon::new(corners.map(|(x, y)| point(x, y)).to_vec()).unwrap();
        assert!((polygon.center().latitude - 90.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn degrees_are_written_as_the_library_writes_them(degrees in -180.0..=180.0_f64, small in -1e-10..1e-10_f64) {
            for degrees in [degrees, small] {
                let plain = format!("{degrees:.17}");
                let plain = plain.trim_end_matches('0').trim_end_matches('.');
                let plain = if plain == "-0" { "0" } else { plain };
                let mut text = [0; DEGREES_TEXT_MAX];
                prop_assert_eq!(degrees_text(degrees, &mut text), plain);
            }
        }

        #[test]
        fn a_score_leads_back_to_its_point(given in any_point(LATITUDE_MAX)) {
            let back = Point::of_score(given.score() as f64);
            prop_assert!((back.longitude - given.longitude).abs() < 1e-5);
            prop_assert!((back.latitude - given.latitude).abs() < 1e-5);
            prop_assert!(given.distance(back) < 1.0);
        }

        #[test]
        fn bits_come_apart_again(x in any::<u32>(), y in any::<u32>()) {
            prop_assert_eq!(deinterleave(interleave(y, x)), (y, x));
            let plain = (0..32).fold(0, |bits, i| {
                bits | u64::from(y >> i & 1) << (2 * i) | u64::from(x >> i & 1) << (2 * i + 1)
            });
            prop_assert_eq!(interleave(y, x), plain);
        }

        #[test]
        fn circles_agree_with_a_look_at_every_point(
            (center, points, degrees) in (any_point(75.0), -4_i32..2).prop_flat_map(|(center, magnitude)| {
                let degrees = 10_f64.powi(magnitude);
                (Just(center), points_near(center, degrees), Just(degrees))
            }),
            share in 0.0..1.0_f64,
        ) {
            // A point across the 180th meridian is not found, as in Redis.
            let radius = 111_000.0 * degrees * share;
            prop_assume!(center.longitude.abs() + 4.0 * degrees < 180.0 && center.latitude.abs() + 2.0 * degrees < 80.0);
            check(&Area::Circle { center, radius }, &points)?;
        }

        #[test]
        fn rectangles_agree_with_a_look_at_every_point(
            (center, points, degrees) in (any_point(75.0), -4_i32..2).prop_flat_map(|(center, magnitude)| {
                let degrees = 10_f64.powi(magnitude);
                (Just(center), points_near(center, degrees), Just(degrees))
            }),
            shares in (0.0..1.0_f64, 0.0..1.0_f64),
        ) {
            prop_assume!(center.longitude.abs() + 4.0 * degrees < 180.0 && center.latitude.abs() + 2.0 * degrees < 80.0);
            let (width, height) = (111_000.0 * degrees * shares.0, 111_000.0 * degrees * shares.1);
            check(&Area::Rectangle { center, width, height }, &points)?;
        }

        #[test]
        fn polygons_agree_with_a_look_at_every_point(
            (vertices, points) in (any_point(LATITUDE_MAX), -4_i32..3).prop_flat_map(|(center, magnitude)| {
                let degrees = 10_f64.powi(magnitude);
                (points_near(center, degrees), points_near(center, degrees))
            }),
        ) {
            if let Some(polygon) = Polygon::new(vertices) {
                check(&Area::Polygon(polygon), &points)?;
            }
        }
    }
}
