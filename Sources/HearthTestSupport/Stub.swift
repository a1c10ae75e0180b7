enum HearthTestSupportStub {}
