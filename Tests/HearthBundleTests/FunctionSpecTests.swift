import HearthBundle
import HearthCore
import Testing

@Suite("function.yaml")
struct FunctionSpecTests {
  @Test("Everything that can be written is read")
  func complete() throws {
    let spec = try FunctionSpec(
      parsing: """
        name: my-model
        description: What it does.
        handler: src/handler.py:Model
        python:
          requirements: requirements.txt
          preload: [numpy, onnxruntime]
          start: spawn
        files:
          - path: weights/a.onnx
          - path: weights/b.onnx
            source: https://example.org/b.onnx
            sha256: 0000000000000000000000000000000000000000000000000000000000000000
        resources:
          cpu: 2
          memory: 1GiB
          gpu: 1
          gpu-memory: 6GiB
          temporary: 64MiB
        scaling:
          min-workers: 1
          max-workers: 8
          max-concurrency: 4
          keep-alive: 90s
        timeouts:
          request-timeout: 30s
          first-byte-timeout: 10s
        env:
          MODE: fast
        network: true
        config:
          top: 3
          nested: {list: [1, 2.5, "3", true, null]}
        """)
    #expect(spec.entry == .handler(file: "src/handler.py", className: "Model"))
    #expect(spec.python.start == .spawn)
    #expect(spec.files.count == 2)
    #expect(spec.resources.memory == .gib(1))
    #expect(spec.policy.workersMax == 8)
    #expect(spec.policy.keepAlive == .fixed(.seconds(90)))
    #expect(spec.policy.requestTimeout == .seconds(30))
    #expect(spec.environment == ["MODE": "fast"])
    #expect(spec.config == #"{"top":3,"nested":{"list":[1,2.5,"3",true,null]}}"#)
  }

  private func error(_ text: String) -> HearthError? {
    #expect(throws: HearthError.self) { try FunctionSpec(parsing: text) }
  }

  @Test("An unknown key is named with line, column and the nearest known key")
  func unknownKey() {
    let message = error("name: a\nhandler: h.py:M\nscaling:\n  keep-alve: 5m\n")
    #expect(message?.message == "function.yaml:4:3: unknown key 'keep-alve'.")
    #expect(message?.hint == "Did you mean 'keep-alive'?")
  }

  @Test("A value that is none names its place and what is expected")
  func badValue() {
    let message = error("name: a\nhandler: h.py:M\nscaling:\n  max-workers: many\n")
    #expect(message?.message == "function.yaml:4:16: 'many' is not a value of max-workers.")
    #expect(message?.hint == "Expected a whole number from 1 to 10000.")
  }

  @Test(
    "What makes no sense is refused",
    arguments: [
      "", "name: a\n", "handler: h.py:M\n", "name: A\nhandler: h.py:M\n", "name: a\nhandler: h.py\n",
      "name: a\nhandler: ../h.py:M\n", "name: a\nhandler: h.py:1M\n", "name: a\nhandler: h.py:M\ncommand: [x]\n",
      "name: a\ncommand: []\n", "name: a\ncommand: x\n", "name: [a]\nhandler: h.py:M\n", "- a\n", "name: a\nname: b\n",
      "name: a\nhandler: h.py:M\nscaling: 5\n", "name: a\nhandler: h.py:M\nenv: {HEARTH_X: 1}\n",
      "name: a\nhandler: h.py:M\nenv: {LD_PRELOAD: x}\n", "name: a\nhandler: h.py:M\nconfig: [1]\n",
      "name: a\nhandler: h.py:M\nfiles: [{path: x, source: http://x}]\n", "name: a\nhandler: h.py:M\nnetwork: maybe\n",
      "name: a\nhandler: h.py:M\npython: {preload: ['import os']}\n", "name: a\nhandler: h.py:M\nfiles: [{path: /x}]\n",
      "name: a\nhandler: h.py:M\nscaling: {min-workers: 5, max-workers: 2}\n",
      "name: a\nhandler: h.py:M\nresources: {memory: lots}\n",
      "name: a\nhandler: h.py:M\ntimeouts: {idle-timeout: 0s}\n",
      "name: a\ncommand: [x]\npython: {preload: [numpy]}\n", "name: a\n\thandler: x\n", "name: 'a\n", "{{{{",
    ])
  func refuses(text: String) { #expect(error(text) != nil) }
}
