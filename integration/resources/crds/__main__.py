import sys

from integration.resources.crds import manifests

sys.stdout.write(manifests())
