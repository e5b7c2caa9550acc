"""Settings: read, bounded, and no misspelt one ignored."""

from pathlib import Path

import pytest

from app.settings import SettingsError, read_settings


def test_defaults() -> None:
    settings = read_settings()
    assert (settings.host, settings.port, settings.max_delay_ms) == ("127.0.0.1", 8000, 0)
    assert (settings.max_body_bytes, settings.max_article_chars) == (2_000_000, 200_000)
    assert settings.request_timeout_ms == 30_000
    assert settings.keys() == frozenset()


def test_a_flag_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLINE_PORT", "9000")
    monkeypatch.setenv("HEADLINE_MAX_WAITING", "7")
    settings = read_settings(port="9001")
    assert (settings.port, settings.max_waiting) == (9001, 7)


def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLINE_MAX_WAITNG", "7")
    with pytest.raises(SettingsError, match="HEADLINE_MAX_WAITNG; did you mean HEADLINE_MAX_WAITING"):
        read_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "http"),
        ("dtype", "int4"),
        ("max_waiting", "0"),
        ("max_delay_ms", "1001"),
        ("log_format", "xml"),
        ("request_timeout_ms", "-1"),
        ("metrics_open", "perhaps"),
    ],
)
def test_a_value_out_of_bounds_names_its_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        read_settings(**{name: value})


def test_keys_from_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("c\n\n  d \n")
    monkeypatch.setenv("HEADLINE_API_KEYS", "a, b,")
    settings = read_settings(api_keys_file=str(tmp_path / "keys"))
    assert settings.keys() == {"a", "b", "c", "d"}
    assert "a, b" not in repr(settings)


def test_keys_that_are_none_do_not_open_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLINE_API_KEYS", " , ")
    with pytest.raises(SettingsError, match="no key in it"):
        read_settings()


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00"])
def test_a_file_without_keys_does_not_open_the_service(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(SettingsError, match="api_keys_file"):
        read_settings(api_keys_file=str(tmp_path / "keys")).keys()
