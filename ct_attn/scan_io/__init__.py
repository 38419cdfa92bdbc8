"""The one door between files and :class:`~ct_attn.volume.Volume` / :class:`~ct_attn.volume.Mask`."""
