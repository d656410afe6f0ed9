"""Which certificates are trusted."""

import ssl

import certifi

from pairscore.errors import SettingsError
from pairscore.settings import FetchSettings


def trusted(settings: FetchSettings) -> str:
    """The path of a bundle of CA certificates, which can be used.

    Raises:
        SettingsError: the one in the settings cannot.
    """
    if settings.ca_file is None:
        return certifi.where()
    if not settings.ca_file.is_file():
        raise SettingsError(
            f"setting PAIRSCORE_FETCH__CA_FILE: {settings.ca_file} is no file; "
            "name a bundle of PEM certificates"
        )
    try:
        ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"setting PAIRSCORE_FETCH__CA_FILE: {settings.ca_file} cannot be used ({error}); "
            "name a bundle of PEM certificates"
        ) from None
    return str(settings.ca_file)
