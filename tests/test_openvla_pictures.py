"""Pictures reach the published models as the published evaluations show them."""

import hashlib
import io

import numpy as np
import published_reference as reference
import pytest
import torch
from PIL import Image
from published import picture, write_config, write_preprocessor

from vla_bench_policies.openvla import jpeg, pictures
from vla_bench_policies.openvla.config import MEANS_AND_DEVIATIONS, read_config
from vla_bench_policies.openvla.errors import PublishedCheckpointError

RNG = np.random.default_rng


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("px", [128, 224, 256, 320])
def test_lanczos_is_pillows_float_filter_rounded_once(seed: int, px: int) -> None:
    """To a five-hundredth of a grey level: TensorFlow's weights are in single precision."""
    shown = picture(RNG(seed), px)
    real = np.clip(reference.real_lanczos(shown), 0, 255)
    assert np.abs(pictures.lanczos(shown, 224) - real).max() <= 0.5 + 2e-3


def test_lanczos_is_not_pillows_own_filter_on_8_bits() -> None:
    """Which rounds between the two directions, and cuts off there what overshoots."""
    shown = picture(RNG(0))
    other = np.asarray(Image.fromarray(shown).resize((224, 224), Image.Resampling.LANCZOS))
    apart = np.abs(pictures.lanczos(shown, 224).astype(int) - other)
    assert 0.05 < (apart > 0).mean() < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_the_centre_crop_is_a_bilinear_sample_between_corner_pixels_cut_off_to_8_bits(seed: int) -> None:
    shown = picture(RNG(seed), 224)
    real = np.minimum(reference.real_crop(shown) * 255.5, 255)
    below = real - pictures.centre_crop(shown, 224)
    assert below.min() > -1e-3
    assert below.max() < 1 + 1e-3


def test_the_centre_crop_leaves_nine_tenths_of_the_area() -> None:
    ramp = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3))
    cut = pictures.centre_crop(np.ascontiguousarray(ramp), 224)
    side = (cut[-1, 0, 0] - cut[0, 0, 0]) / 223
    assert side**2 == pytest.approx(0.9, abs=0.01)
    assert cut[0, 0, 0] == int((1 - 0.9**0.5) / 2 * 223)


BY_THE_LIBRARY = {
    (256, 256): "b8bc09809fd709f647b80f0ac211710cfb1c0a1098460a85dc20e08da00de635",
    (101, 173): "fed0f833199c1fc10be7538f6fd58930f9941120c8912ec67d178d19eee28c3f",
    (250, 250): "7be2c7d62ea999ac18b730983409d6812633c837a46e8ce62c4d17abcfb492bc",
}
"""SHA-256 of what libjpeg-turbo decodes by its fast transform (simplejpeg 1.9) of a JPEG of Pillow 13."""


@pytest.mark.parametrize("size", BY_THE_LIBRARY)
def test_the_jpeg_is_to_the_bit_what_the_librarys_fast_transform_decodes(size: tuple[int, int]) -> None:
    shown = picture(RNG(4))[: size[0], : size[1]]
    assert hashlib.sha256(jpeg.round_trip(shown).tobytes()).hexdigest() == BY_THE_LIBRARY[size]


BY_TENSORFLOW = {
    (1, 256): (
        "f759f9ed4b4110c54daa64f4bbb76c7b6b7489ac76f25f285e6e753b8bdd9664",
        "09a4e487c6ebec754593cb8ac2537b0ebe13df70bf0f3295ad5a2c1defa64328",
    ),
    (2, 256): (
        "48f7e9aaf99e30e0f5db66956efe52ca4da96dbeaa983aa91c0c8177feab64e7",
        "79185b9c9e60f216d39489775e814d547b601f8c0dcdb0efdcb1ba590d19c752",
    ),
    (3, 256): (
        "9969c031990dd7cffa4b0d03cc95dd7d8c6b46da4a5fd73d8b7250cdc10b04ad",
        "8bd94d5ec1057df9629740bf7a5cd6ae6a786b402b6aa226b9c20069c29164b6",
    ),
    (1, 128): (
        "62b6d80f039709c978596f452f8dee58f2ed92fb6f67fee6a818b8e66be34a80",
        "e7440c1a7918d862881124561e650877e5c0467bdec9cbd24c9b2e145ee367c0",
    ),
    (1, 224): (
        "e2abf90d755da9a1c7b19d436e24520cbfc552a4ce67e2d65bf59ffffe162361",
        "cccac111af4bf25f990592c6d2f8cc5b34264b3e872a73321e91f9aa3fb00f90",
    ),
    (1, 320): (
        "78177f0a41bd90377dd5875fd69ee34689b5f8da0cdc7ab644cc047b57aa4200",
        "cdad99cb996dc777f61ad8b10da5a830701d0a0b2dd033745eb7d28956724c31",
    ),
}
"""By seed and side [px]: SHA-256 of what TensorFlow 2.21 (tensorflow-cpu, x86-64) makes of a picture.

First `encode_jpeg`, `decode_image`, `resize(method="lanczos3", antialias=True)`, `round` and a cast to 8 bits, as in
`libero_utils.py`; then `convert_image_dtype`, `crop_and_resize` and `convert_image_dtype(saturate=True)` of that, as in
`openvla_utils.py`. Of 14 pictures that were compared, two were one level off in one and two of 150528 values.
"""


@pytest.mark.parametrize(("seed", "px"), BY_TENSORFLOW)
def test_from_rendered_pixels_to_what_the_model_sees_every_bit_is_tensorflows(seed: int, px: int) -> None:
    shown = picture(RNG(seed), px)
    made = (pictures.libero_picture(shown, 224, crop=crop) for crop in (False, True))
    assert tuple(hashlib.sha256(one.tobytes()).hexdigest() for one in made) == BY_TENSORFLOW[seed, px]


def test_the_jpeg_is_not_the_one_that_image_libraries_decode_which_round_where_it_cuts() -> None:
    shown = picture(RNG(2))
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=95, subsampling="4:2:0")
    accurate = np.asarray(Image.open(stream)).astype(int)
    below = accurate - jpeg.round_trip(shown)
    assert 0.5 < np.abs(below).mean() < 1.5
    assert below.mean() > 0.2  # it is darker


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_preparation_is_the_independent_one(seed: int) -> None:
    shown = picture(RNG(seed))
    ours, theirs = pictures.libero_picture(shown, 224, crop=True), reference.libero_picture(shown)
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1  # float32 here, float64 there: a value on the edge of two grey levels
    assert (apart > 0).mean() < 1e-3
    found = pictures.normalised(ours[None], tuple(reference.COLOURS))
    torch.testing.assert_close(found[0], reference.pixel_values(ours), rtol=0, atol=1e-4)


def test_a_picture_that_fits_is_squeezed_by_nobody_and_another_one_bicubically() -> None:
    shown = picture(RNG(0), 224)
    assert np.array_equal(pictures.fitted(shown, 224), shown)
    wide = np.ascontiguousarray(picture(RNG(0), 256)[:200])
    expected = Image.fromarray(wide).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.array_equal(pictures.fitted(wide, 224), np.asarray(expected))


def test_the_colours_are_the_rounded_ones_that_the_published_processor_uses(tmp_path) -> None:
    write_config(tmp_path)
    write_preprocessor(tmp_path)
    assert read_config(tmp_path).normalisation == tuple(reference.COLOURS)
    write_preprocessor(tmp_path, tvf_normalize_params=None)
    assert read_config(tmp_path).normalisation == MEANS_AND_DEVIATIONS


@pytest.mark.parametrize(("changes", "found"), [
    ({"image_resize_strategy": "letterbox"}, "image_resize_strategy 'letterbox'"),
    ({"interpolations": ["bicubic", "bilinear"]}, "interpolation 'bilinear'"),
])  # fmt: skip
def test_another_preparation_is_refused(tmp_path, changes: dict, found: str) -> None:
    write_config(tmp_path)
    write_preprocessor(tmp_path, **changes)
    with pytest.raises(PublishedCheckpointError, match=found):
        read_config(tmp_path)
