import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** Puts a compressed twin beside each text file: the server has no compression of its own. */
function gzip(): Plugin {
  return {
    name: "gzip",
    apply: "build",
    enforce: "post",
    generateBundle(_, bundle) {
      for (const [fileName, file] of Object.entries(bundle)) {
        const source = file.type === "chunk" ? file.code : file.source;
        if (/\.(js|css|svg)$/.test(fileName)) {
          this.emitFile({ type: "asset", fileName: `${fileName}.gz`, source: gzipSync(source, { level: 9 }) });
        }
      }
    },
  };
}

export default defineConfig({
  // Any path: the page may stand behind a proxy.
  base: "./",
  build: { target: "es2022", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  plugins: [gzip()],
  server: { proxy: { "/api": "http://127.0.0.1:8501" } },
});
