"""Makes a release, all of it in build/release: ``make release VERSION=0.1.0``. See docs/releasing.md.

- ``wish``: what was asked for, and whether it may be released: pure.
- ``sources``: the committed files, of which everything is made.
- ``images``: one OCI archive for each image, for all platforms that this machine can build for.
- ``packages``: the chart, the file for ``kubectl apply``, and the Python packages.
- ``papers``: bills of materials, provenance and checksums.
- ``registry``: pushes what was made.
"""
