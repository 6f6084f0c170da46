# SPDX-License-Identifier: Apache-2.0
# Spack recipe. From a checkout:
#   spack repo add contrib/spack && spack dev-build antipode@main
from spack.package import *


class Antipode(AutotoolsPackage):
    """Trains DeepSeek-style models on clusters that are far apart."""

    license("Apache-2.0")

    version("main", branch="main")

    variant("onednn", default=True, description="oneDNN kernels on CPUs")

    depends_on("c", type="build")
    depends_on("autoconf@2.71:", type="build")
    depends_on("automake@1.16:", type="build")
    depends_on("libtool", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("openmpi@5:")
    depends_on("hdf5@1.14:~mpi")
    depends_on("hwloc@2:")
    depends_on("libfyaml@0.8:")
    depends_on("random123")
    depends_on("xxhash@0.8:")
    depends_on("yyjson")
    depends_on("zstd@1.5:")
    depends_on("onednn@3:", when="+onednn")

    def autoreconf(self, spec, prefix):
        autoreconf("-i")

    def configure_args(self):
        return ["--without-criterion"] + self.with_or_without("onednn")
