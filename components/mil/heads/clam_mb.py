"""CLAM with an attention branch a class."""

from __future__ import annotations

import keras

from components.mil.heads.clam import ClamHead


@keras.saving.register_keras_serializable(package="bagline")
class ClamMB(ClamHead):
    """CLAM-MB (Lu et al. 2021): each class pools by its own attention."""

    @property
    def branches(self) -> int:
        """As many as classes."""
        return self.classes
