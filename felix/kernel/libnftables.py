"""nft's own library, for statements in text: one call is one transaction."""

from __future__ import annotations

import ctypes
import ctypes.util


class NftMissing(OSError):
    """The library or the program is not installed; the text says what to install."""


class NftRefused(Exception):
    """Nothing of the transaction was done. The text is nft's, with the place in the statements."""


class LibNftables:
    """One context; not for two threads at once. Raises NftMissing."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("nftables") or "libnftables.so.1"
        try:
            library = ctypes.CDLL(name)
        except OSError:
            raise NftMissing("there is no libnftables: apt-get install libnftables1 nftables") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise MemoryError("libnftables gave no context")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def run(self, statements: str) -> None:
        """Raises NftRefused."""
        code = self._library.nft_run_cmd_from_buffer(self._context, statements.encode())
        error = self._library.nft_ctx_get_error_buffer(self._context)
        if code != 0:
            raise NftRefused((error or b"").decode(errors="replace").strip() or f"nft failed with {code}")

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None
