"""Signatures find changes made on purpose, and encrypted arrays are nowhere to be read."""

import os
import secrets
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import gradtx
from gradtx import checkpoint
from gradtx.checkpoint import _cipher, _manifest
from tests.checkpoint._sides import assert_same_bits

KEY, OTHER = b"k" * 32, b"o" * 32
#: Weights of which no file holds a part by chance, and that do not compress.
PATTERN = np.random.default_rng(0).normal(size=2000).astype(np.float32)
PARAMS = {"w": jnp.asarray(PATTERN), "b": jnp.arange(5, dtype=jnp.float32)}


class AesGcm:
    """A cipher as a user writes it, with AES-GCM of `cryptography`."""

    name = "AES-256-GCM"

    def __init__(self, key):
        self.cipher = AESGCM(key)

    def encrypt(self, data, name):
        nonce = secrets.token_bytes(12)
        return nonce + self.cipher.encrypt(nonce, data, name.encode())

    def decrypt(self, data, name):
        return self.cipher.decrypt(data[:12], data[12:], name.encode())


class FernetCipher:
    """The same with Fernet, which authenticates contents but no names."""

    name = "Fernet"

    def __init__(self, key):
        self.cipher = Fernet(key)

    def encrypt(self, data, name):
        return self.cipher.encrypt(data)

    def decrypt(self, data, name):
        return self.cipher.decrypt(data)


CIPHERS = {
    "AES-256-GCM": lambda: AesGcm(secrets.token_bytes(32)),
    "Fernet": lambda: FernetCipher(Fernet.generate_key()),
}


@pytest.fixture(scope="module", params=CIPHERS)
def encrypted(request, tmp_path_factory):
    """A cipher, and a step encrypted with it and signed."""
    cipher = CIPHERS[request.param]()
    run = tmp_path_factory.mktemp("run")
    path = checkpoint.save(run, 1, key=KEY, cipher=cipher, params=PARAMS)
    return cipher, path


def contents(path):
    """Return the bytes of all files below a path, one after the other."""
    return b"".join(p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file())


def test_no_file_holds_what_was_encrypted(encrypted, tmp_path):
    _, path = encrypted
    assert PATTERN[100:104].tobytes() not in contents(path)
    plain = checkpoint.save(tmp_path, 1, params=PARAMS)
    assert PATTERN[100:104].tobytes() in contents(plain)  # the search finds it there


def test_it_comes_back_with_the_right_key(encrypted):
    cipher, path = encrypted
    back = checkpoint.restore(path, key=KEY, cipher=cipher, params=PARAMS)
    assert_same_bits(back["params"], PARAMS)
    checkpoint.verify(path, key=KEY, arrays=True, cipher=cipher)
    checkpoint.verify(path)  # bytes are compared as they lie there


def test_another_key_is_damage_that_asks_for_the_key(encrypted):
    cipher, path = encrypted
    wrong = CIPHERS[cipher.name]()
    with pytest.raises(gradtx.DamagedError) as caught:
        checkpoint.restore(path, cipher=wrong, params=PARAMS)
    assert f"{cipher.name} refuses to decrypt it" in str(caught.value)
    assert "Is the key the one" in str(caught.value)
    with pytest.raises(gradtx.DamagedError):
        checkpoint.verify(path, arrays=True, cipher=wrong)


def test_a_cipher_that_is_missing_or_needless_is_named(encrypted, tmp_path):
    cipher, path = encrypted
    with pytest.raises(gradtx.ArgumentError) as caught:
        checkpoint.restore(path, params=PARAMS)
    assert f"encrypted with {cipher.name}, and cipher= is not given" in str(
        caught.value
    )
    plain = checkpoint.save(tmp_path, 1, params=PARAMS)
    with pytest.raises(gradtx.ArgumentError, match="encrypted with nothing"):
        checkpoint.restore(plain, cipher=cipher, params=PARAMS)


def test_the_scratch_is_private_and_goes(encrypted, monkeypatch, tmp_path):
    cipher, path = encrypted
    seen = []

    class Looking:
        name = cipher.name

        def decrypt(self, data, name):
            (scratch,) = tmp_path.glob("gradtx-*")
            seen.append(scratch.stat().st_mode & 0o777)
            return cipher.decrypt(data, name)

        def encrypt(self, data, name):
            raise NotImplementedError

    monkeypatch.setattr(_cipher, "_MEMORY", tmp_path)
    checkpoint.restore(path, cipher=Looking(), params=PARAMS)
    assert set(seen) == {0o700}
    assert os.listdir(tmp_path) == []
    with pytest.raises(gradtx.DamagedError):
        checkpoint.restore(path, cipher=CIPHERS[cipher.name](), params=PARAMS)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    """A step that is signed and not encrypted."""
    return checkpoint.save(tmp_path_factory.mktemp("run"), 1, key=KEY, params=PARAMS)


def test_a_signature_tells_who_wrote(signed, tmp_path):
    assert_same_bits(
        checkpoint.restore(signed, key=KEY, params=PARAMS)["params"], PARAMS
    )
    checkpoint.verify(signed)  # accidents are found without a key
    with pytest.raises(gradtx.DamagedError, match="signed with another key"):
        checkpoint.restore(signed, key=OTHER, params=PARAMS)
    unsigned = checkpoint.save(tmp_path, 1, params=PARAMS)
    with pytest.raises(
        gradtx.DamagedError, match="it is not signed, and a key was given"
    ):
        checkpoint.restore(unsigned, key=KEY, params=PARAMS)


def test_what_was_changed_and_sealed_again_is_found_by_its_signature(signed, tmp_path):
    path = shutil.copytree(signed, tmp_path / signed.name)
    manifest = _manifest.read_manifest(path, KEY)
    object.__setattr__(manifest, "record", {"changed": True})
    for key in (None, OTHER):
        (path / "manifest.json").write_bytes(_manifest.sealed(manifest, key))
        checkpoint.verify(path)  # as anybody can write it
        with pytest.raises(gradtx.DamagedError, match=r"not signed|another key"):
            checkpoint.verify(path, key=KEY)


def test_a_signature_is_not_of_use_for_another_step(signed, tmp_path):
    path = shutil.copytree(signed, tmp_path / "step_00000002")
    with pytest.raises(gradtx.DamagedError, match=r"it holds step 1\. It was renamed"):
        checkpoint.verify(path, key=KEY)


def test_files_of_another_step_are_damage(tmp_path):
    first, second = (
        checkpoint.save(tmp_path, n, params={"w": jnp.full(4, float(n))})
        for n in (1, 2)
    )
    shutil.rmtree(second / "arrays")
    shutil.copytree(first / "arrays", second / "arrays")
    with pytest.raises(gradtx.DamagedError, match="step_00000002"):
        checkpoint.restore(second, params={"w": jnp.zeros(4)})
