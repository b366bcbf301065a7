"""CLAM with a single attention branch."""

from __future__ import annotations

import keras

from components.mil.heads.clam import ClamHead


@keras.saving.register_keras_serializable(package="bagline")
class ClamSB(ClamHead):
    """CLAM-SB (Lu et al. 2021): one attention for all classes."""

    @property
    def branches(self) -> int:
        """One."""
        return 1
